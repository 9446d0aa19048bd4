"""Guidance terms, a file each; see `raysynth.synthesis.guidance`."""
