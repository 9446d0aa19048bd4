"""Scorers of generated images, a file each; see `raysynth.scoring.scorer`."""
