"""Copies are found among what synthesis's miniature room makes."""

from tests.synthesis.conftest import base_folder, clip_folder, make_config

__all__ = ["base_folder", "clip_folder", "make_config"]
