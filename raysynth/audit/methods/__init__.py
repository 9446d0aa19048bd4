"""Audits, one file each: which group's training images a generated image owes what."""
