"""A LoRA adapter for every group, its images bound to the rare token."""

from __future__ import annotations

from raysynth.generators.generator import Generator, Models

PART = Generator(
    "LoRA per group",
    "Basu et al. (arXiv 2511.08711); Hu et al. 2021 (arXiv 2106.09685)",
    Models("lora", "group", other="dreambooth"),
)
