"""Generators: what is fine-tuned on which images, and how images are made."""
