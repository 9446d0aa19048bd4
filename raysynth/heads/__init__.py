"""Heads: linear layers fitted to frozen features."""
