"""Random models and a clustering stage's tables, as the room of synthesis has them."""

from tests.synthesis.conftest import base_folder, clip_folder, clusters_folder, make_config

__all__ = ["base_folder", "clip_folder", "clusters_folder", "make_config"]
