"""ERM features with a group-balanced last layer, fitted on the real training images."""

from __future__ import annotations

from raysynth.classify.references.reference import Reference, no_step_size
from raysynth.classify.training import HeadSpec
from raysynth.config import ClassifierConfig


def _heads(classifier: ClassifierConfig) -> tuple[HeadSpec, ...]:
    return tuple(HeadSpec("balanced", decay) for decay in classifier.reference_head_weight_decays)


ERM_BALANCED_HEAD = Reference(
    name="erm_balanced_head",
    source="Kirichenko et al. 2023 (arXiv 2204.02937), last-layer retraining, on training images",
    sampling="uniform",
    step_size=no_step_size,
    heads=_heads,
)
"""The encoder is ERM's. The head is refitted to convergence on the frozen features of all real
training images, every group weighing the same; its weight decay is tuned too. DFR proper fits on
held-out balanced images: here validation is for choosing only, for every method."""
