"""Runs that begin with prompts."""
