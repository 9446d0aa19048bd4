"""Subsampling: ERM on a group-balanced subset of the training images.

Keeps as many images of every group as the smallest has, drawn once per training, and shuffles
them in epochs. With 20 images in the smallest of four groups, 80 images remain.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, on_real

PART = Reference(
    "Group subsampling (SUBG)",
    "Idrissi et al. 2022 (arXiv 2110.14503), SUBG",
    lambda config, setting: (on_real(config, setting, images="real_subset"),),
)
