"""raysynth's own training: from parameters, searched or configured, to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from raysynth.heads.spec import HEAD_OBJECTIVES, TRAINED, HeadSpec
from raysynth.networks.settings import ClassifierConfig
from raysynth.training.plan import Images, Phase, Plan

SEARCHED = ("beta", "temperature", "learning_rate", "weight_decay", "steps")
"""Knobs of an encoder's training that a trial sets, besides `ratio`."""
REAL_SHARE = "real_share"
"""Knob of `joint` that a trial sets where `search.real_shares` has values."""


class TriedHead(NamedTuple):
    """Knobs of the head alone: all their values are tried on every encoder."""

    head_weight_decay: float
    head_real_share: float


HEAD = TriedHead._fields


def configured(classifier: ClassifierConfig) -> dict[str, Any]:
    """The parameters when nothing is searched: the `classifier` section as it is."""
    settled = classifier.settled()
    return {name: getattr(settled, name) for name in ("ratio", *SEARCHED, *HEAD)}


def plan_of(
    parameters: Mapping[str, Any],
    classifier: ClassifierConfig,
    seed: int = 0,
    heads: Sequence[tuple[float, float]] = (),
) -> Plan:
    """The training that parameters describe; `seed`: index of the repetition.

    Stage 1 is beta * CE + (1-beta) * SupCon on balanced synthetic images (on the real ones at ratio
    0), stage 2 follows on real images: the head with the encoder frozen (Basu et al., arXiv
    2511.08711), or all weights (`full`). `joint` has one stage, on both kinds of images, with the
    weight `real_share` of `parameters`, or the configured one.
    `heads`: (weight decay, real share) of those tried on each snapshot; none: the one of
    `parameters`. Without synthetic images, at ratio 0, all are fitted to real ones alone.
    """
    specs: tuple[HeadSpec, ...] = (TRAINED,)
    if classifier.schedule == "head":
        specs = _heads(classifier, heads or [_head(parameters)], float(parameters["ratio"]) > 0)
    joint = classifier.schedule == "joint"
    phases = [_joint(parameters, classifier) if joint else _stage_one(parameters)]
    if classifier.schedule == "full":
        phases.append(_all_weights(parameters, classifier))
    return Plan(tuple(phases), specs, classifier.evaluations, seed)


def _head(parameters: Mapping[str, Any]) -> TriedHead:
    # A search by an earlier version knows no share: its heads are fitted to real images alone.
    share = float(parameters.get("head_real_share", 1.0))
    return TriedHead(float(parameters["head_weight_decay"]), share)


def _heads(
    classifier: ClassifierConfig, heads: Sequence[tuple[float, float]], synthetic: bool
) -> tuple[HeadSpec, ...]:
    specs = (
        HeadSpec(classifier.head_objective, decay, real_share=share if synthetic else 1.0)
        for decay, share in heads
    )
    return tuple(dict.fromkeys(specs))


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
    objective = HEAD_OBJECTIVES[classifier.head_objective]
    rate = classifier.settled().full_learning_rate
    assert rate is not None
    return Phase(
        images="real",
        steps=classifier.full_steps,
        learning_rate=rate,
        weight_decay=float(parameters["weight_decay"]),
        sampling=objective.sampling,
        dro_step_size=classifier.dro_step_size if objective.robust else 0.0,
    )


def _joint(parameters: Mapping[str, Any], classifier: ClassifierConfig) -> Phase:
    """DataDream's pooled loss (Kim et al., arXiv 2407.10910); only real images at ratio 0."""
    ratio = float(parameters["ratio"])
    share = float(parameters.get(REAL_SHARE, classifier.real_share))
    return Phase(
        images="joint" if ratio > 0 else "real",
        steps=int(parameters["steps"]),
        learning_rate=float(parameters["learning_rate"]),
        weight_decay=float(parameters["weight_decay"]),
        ratio=ratio,
        sampling=HEAD_OBJECTIVES[classifier.head_objective].sampling,
        real_share=share if ratio > 0 else 0.0,
        joint_means=classifier.joint_means and ratio > 0,
        mix=classifier.mix,
    )
