"""Runs that end in adapters."""
