"""A model for every cluster of a group: the paper's own, with LoRA adapters or full weights."""

from __future__ import annotations

from raysynth.generators.generator import Generator, Models

PART = Generator(
    "DreamBooth per cluster", "Basu et al. (arXiv 2511.08711)", Models("lora", "group_cluster")
)
