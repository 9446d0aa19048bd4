"""Data sets: images in."""
