"""One trial: an encoder's training that reports, at every evaluation, all heads tried on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray import tune

from raysynth.groups.metrics import GroupMetrics
from raysynth.heads.spec import HeadSpec
from raysynth.models.threads import use_threads
from raysynth.networks.build import Blueprint
from raysynth.networks.images import Data
from raysynth.networks.settings import ClassifierConfig
from raysynth.search.settings import SearchConfig
from raysynth.training.fit import fit
from raysynth.training.plan import Plan
from raysynth.training.two_stage import TriedHead, plan_of

SCORE = "score"
"""What Tune maximises: validation WGA of the best head, ties broken by AGA."""


def planned(
    parameters: Mapping[str, Any], classifier: ClassifierConfig, search: SearchConfig
) -> Plan:
    """The training of a trial, with every head of the search."""
    return plan_of(parameters, classifier, heads=search.heads)


def run_trial(
    parameters: dict[str, Any], data: Data, blueprint: Blueprint, search: SearchConfig
) -> None:
    """Tune's function trainable; `data` arrives read-only from the object store."""
    use_threads(search.cpus_per_trial)
    start = time.perf_counter()
    plan = planned(parameters, blueprint.classifier, search)
    for snapshot in fit(plan, data, blueprint):
        seconds = time.perf_counter() - start
        tune.report(report(plan, snapshot.step, snapshot.validation, seconds))


def written(head: TriedHead) -> str:
    """A head as the key of its report, exactly; Tune flattens reports at slashes."""
    return ":".join(map(repr, head))


def read(key: str) -> TriedHead:
    """Inverse of `written`."""
    return TriedHead(*map(float, key.split(":")))


def report(
    plan: Plan, step: int, validation: Mapping[str, GroupMetrics], seconds: float
) -> dict[str, Any]:
    """The best head's metrics, and every head's under its weight decay and real share."""
    best = max(validation.values(), key=lambda metrics: metrics.score)
    found = {_key(spec): validation[spec.name] for spec in plan.heads}
    return {
        SCORE: best.score,
        "validation_wga": best.wga,
        "validation_aga": best.aga,
        "reached": step,
        "seconds": round(seconds, 2),
        "heads": {key: {"wga": m.wga, "aga": m.aga} for key, m in found.items()},
    }


def _key(spec: HeadSpec) -> str:
    return written(TriedHead(spec.weight_decay, spec.real_share))
