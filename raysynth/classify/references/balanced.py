"""Group-balanced sampling: every group equally often in every batch."""

from __future__ import annotations

from raysynth.classify.references.reference import Reference, no_step_size, trained_head

BALANCED = Reference(
    name="balanced",
    source="Idrissi et al. 2022 (arXiv 2110.14503), RWG",
    sampling="balanced",
    step_size=no_step_size,
    heads=trained_head,
)
"""Draws images with probability 1 / (G * n_g), with replacement. The few images of a small group
come again and again and are soon known by heart, so its accuracy peaks early: early stopping on
validation WGA is part of the method."""
