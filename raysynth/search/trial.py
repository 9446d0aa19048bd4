"""One trial: a two-stage training that reports its validation accuracies at every evaluation."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from raysynth.classify.data import Data
from raysynth.classify.recipe import plan_of
from raysynth.classify.training import fit
from raysynth.config import Config
from raysynth.models.device import use_threads

SCORE = "score"
"""What Tune maximises: validation WGA, ties broken by AGA."""


def run_trial(parameters: dict[str, Any], data: Data, config: Config) -> None:
    """Tune's function trainable; `data` arrives read-only from the object store."""
    use_threads(config.search.cpus_per_trial)
    start = time.perf_counter()
    for snapshot in fit(plan_of(parameters, config.classifier), data, config):
        _, metrics = snapshot.best()
        tune.report(
            {
                SCORE: metrics.score,
                "validation_wga": metrics.wga,
                "validation_aga": metrics.aga,
                "reached": snapshot.step,
                "seconds": round(time.perf_counter() - start, 2),
            }
        )
