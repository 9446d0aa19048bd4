"""Runs that begin with prompts: images by any set of adapters' files (`generate`)."""
