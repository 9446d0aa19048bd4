"""raysynth's own training: from parameters, searched or configured, to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysynth.classify.plan import TRAINED, HeadSpec, Images, Phase, Plan
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
    0), stage 2 follows on real images: the head with the encoder frozen (Basu et al., arXiv
    2511.08711), or all weights (`full`). `joint` has one stage, on both kinds of images.
    `head_weight_decays`: heads tried on each snapshot; none: the one of `parameters`.
    """
    heads: tuple[HeadSpec, ...] = (TRAINED,)
    if classifier.schedule == "head":
        decays = head_weight_decays or (float(parameters[HEAD]),)
        heads = tuple(HeadSpec(classifier.head_objective, decay) for decay in decays)
    joint = classifier.schedule == "joint"
    phases = [_joint(parameters, classifier) if joint else _stage_one(parameters)]
    if classifier.schedule == "full":
        phases.append(_all_weights(parameters, classifier))
    return Plan(tuple(phases), heads, classifier.evaluations, seed)


def _stage_one(parameters: Mapping[str, Any]) -> Phase:
    ratio = float(parameters["ratio"])
    # Never both: "looks synthetic" would become the new shortcut (FFR, arXiv 2308.04553).
    images: Images = "synthetic" if ratio > 0 else "real"
    return Phase(
        images=images,
        steps=int(parameters["steps"]),
        learning_rate=float(parameters["learning_rate"]),
        weight_decay=float(parameters["weight_decay"]),
        ratio=ratio,
        beta=float(parameters["beta"]),
        temperature=float(parameters["temperature"]),
    )


def _all_weights(parameters: Mapping[str, Any], classifier: ClassifierConfig) -> Phase:
    """Stage 2 of `full`: every weight goes on from stage 1, on the real images."""
    robust = classifier.head_objective == "group_dro"
    return Phase(
        images="real",
        steps=classifier.full_steps,
        learning_rate=classifier.full_learning_rate,
        weight_decay=float(parameters["weight_decay"]),
        sampling="uniform" if classifier.head_objective == "erm" else "balanced",
        dro_step_size=classifier.dro_step_size if robust else 0.0,
    )


def _joint(parameters: Mapping[str, Any], classifier: ClassifierConfig) -> Phase:
    """DataDream's pooled loss (Kim et al., arXiv 2407.10910); only real images at ratio 0."""
    ratio = float(parameters["ratio"])
    return Phase(
        images="joint" if ratio > 0 else "real",
        steps=int(parameters["steps"]),
        learning_rate=float(parameters["learning_rate"]),
        weight_decay=float(parameters["weight_decay"]),
        ratio=ratio,
        sampling="uniform" if classifier.head_objective == "erm" else "balanced",
        real_share=classifier.real_share if ratio > 0 else 0.0,
    )
