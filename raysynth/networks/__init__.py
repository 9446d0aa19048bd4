"""Networks: the small one, transformers' ones, their linear head."""
