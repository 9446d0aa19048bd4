"""Stages: a run's folder, what was made of what."""
