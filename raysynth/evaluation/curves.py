"""What trackers are told of final classifiers: validation while they were trained, and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysynth.evaluation.final import Final
from raysynth.groups.metrics import GroupMetrics
from raysynth.trackers.several import Trackers
from raysynth.trackers.tracker import AGA, WGA


def tell_curves(tracker: Trackers, stage: str, finals: Sequence[Final]) -> None:
    """WGA and AGA on validation at every evaluation of every training, a run each."""
    for final in finals:
        for at in final.record["history"]:
            metrics = GroupMetrics.from_dict(at["heads"][final.head])
            values = {WGA: metrics.wga, AGA: metrics.aga}
            tracker.metrics(f"{stage}/{final.method}, seed {final.seed}", at["step"], values)


def tell_tested(tracker: Trackers, methods: Mapping[str, Any]) -> None:
    """Mean WGA and AGA of every method on test."""
    for name, row in methods.items():
        values = {f"test {key.upper()}": float(row[key]["mean"]) for key in ("wga", "aga")}
        tracker.metrics(f"test/{name}", 0, values)
