"""raysynth's own two-stage training: from parameters, searched or configured, to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysynth.classify.training import HeadSpec, Plan
from raysynth.config import ClassifierConfig

SEARCHED = ("beta", "temperature", "learning_rate", "weight_decay", "steps")
"""Knobs of an encoder's training that a trial sets, besides `ratio`."""
HEAD = "head_weight_decay"
"""Knob of the head alone: all its values are tried on every encoder."""


def configured(classifier: ClassifierConfig) -> dict[str, Any]:
    """The parameters when nothing is searched: the `classifier` section as it is."""
    return {name: getattr(classifier, name) for name in ("ratio", *SEARCHED, HEAD)}


def plan_of(
    parameters: Mapping[str, Any],
    classifier: ClassifierConfig,
    seed: int = 0,
    head_weight_decays: Sequence[float] = (),
) -> Plan:
    """The training that parameters describe; `seed`: index of the repetition.

    Stage 1 is beta * CE + (1-beta) * SupCon on balanced synthetic images (on the real ones at ratio
    0), stage 2 the head on real images with the encoder frozen (Basu et al., arXiv 2511.08711).
    `head_weight_decays`: heads tried on each snapshot; none: the one of `parameters`.
    """
    decays = head_weight_decays or (float(parameters[HEAD]),)
    return Plan(
        ratio=float(parameters["ratio"]),
        steps=int(parameters["steps"]),
        learning_rate=float(parameters["learning_rate"]),
        weight_decay=float(parameters["weight_decay"]),
        heads=tuple(HeadSpec(classifier.head_objective, decay) for decay in decays),
        beta=float(parameters["beta"]),
        temperature=float(parameters["temperature"]),
        evaluations=classifier.evaluations,
        seed=seed,
    )
