"""Classifiers' training: plans, images, optimizer steps, units of work."""
