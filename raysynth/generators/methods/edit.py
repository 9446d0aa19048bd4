"""Real images of a class's aligned group, edited for its other groups by the model of `shared`.

SDEdit (Meng et al. 2022, arXiv 2108.01073) on what the attribute's words are about, as DiffEdit's
masks tell it (Couairon et al. 2023, arXiv 2210.11427); the rest of an image stays real.
"""

from __future__ import annotations

from raysynth.generators.generator import OURS, Generator, Models, Sampling

UNMASKED = 0.85
"""Strength of edits of whole images: less leaves a trace of the old attribute (decisions/021)."""

PART = Generator(
    "Real images, edited",
    f"{OURS}, after SDEdit (arXiv 2108.01073) and DiffEdit (arXiv 2210.11427)",
    Models("full", "auto"),
    Sampling(edits=True, masks=True, strength=UNMASKED),
)
