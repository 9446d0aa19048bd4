"""How much better the base explains an image under its own group's prompt than under another's."""

from __future__ import annotations

from raysynth.selection.rule import Score

PART = Score(
    "Diffusion Classifier's margin",
    "after Li et al. 2023 (arXiv 2303.16203); theirs names the group only",
    "the Diffusion Classifier's margin",
    ("dc_margin",),
    lambda columns, config: columns["dc_margin"],
)
