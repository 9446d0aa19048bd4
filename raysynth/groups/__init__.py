"""Groups (label x attribute): names, prompts, balance, metrics."""
