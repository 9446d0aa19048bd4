"""Images of the base model as it is, by the groups' prompts alone."""

from __future__ import annotations

from raysynth.generators.generator import Generator

PART = Generator("The base model, by its prompts", "Basu et al. (arXiv 2511.08711)")
