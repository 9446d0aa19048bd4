"""Families of checks, one per file."""
