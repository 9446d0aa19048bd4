"""Scores that candidates are ordered by, one file each, called as their file."""
