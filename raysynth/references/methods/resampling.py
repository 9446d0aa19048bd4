"""Resampling: every group equally often in every batch, on average.

Draws images with probability 1 / (G * n_g), with replacement. The few images of a small group
come again and again and are soon known by heart, so its accuracy peaks early: early stopping on
validation WGA is part of the method.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, on_real

PART = Reference(
    "Group-balanced sampling",
    "Idrissi et al. 2022 (arXiv 2110.14503), RWG",
    lambda config, setting: (on_real(config, setting, sampling="balanced"),),
)
