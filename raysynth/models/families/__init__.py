"""Families of base models, a file each; see `raysynth.models.family`."""
