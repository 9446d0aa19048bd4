"""Full weights for every group, with DreamBooth's prior preservation."""

from __future__ import annotations

from raysynth.generators.generator import Generator, Models

PART = Generator(
    "DreamBooth per group",
    "Basu et al. (arXiv 2511.08711); Ruiz et al. 2023 (arXiv 2208.12242)",
    Models("full", "group", other="lora"),
)
