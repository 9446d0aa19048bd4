"""Runs that end in adapters: one of each folder of images, and no classifier (`train`)."""
