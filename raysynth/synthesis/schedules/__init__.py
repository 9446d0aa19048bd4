"""Schedules of noise levels, a file each; see `raysynth.synthesis.schedule`."""
