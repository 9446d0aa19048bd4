"""Quotas, one file each, called as their file."""
