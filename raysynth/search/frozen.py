"""The search when no encoder is trained: one encoding of the images, then every head on it."""

from __future__ import annotations

import time
from typing import Any

import ray

from raysynth.heads.seen import Features
from raysynth.models.device import pick_device
from raysynth.models.threads import use_threads
from raysynth.networks.build import Blueprint
from raysynth.networks.images import Data
from raysynth.search.settings import SearchConfig
from raysynth.search.table import row_of
from raysynth.search.trial import planned, report
from raysynth.training.fit import encode_frozen, try_heads
from raysynth.training.plan import Plan
from raysynth.training.two_stage import configured

TRIAL = "frozen"


def search_frozen(blueprint: Blueprint, search: SearchConfig, data: Data) -> dict[str, Any]:
    """The one row of trials.parquet: all heads on the pretrained encoder.

    Encoding the images takes a worker minutes and the heads milliseconds, so the features stay in
    the object store between the two.
    """
    resources = {"num_cpus": search.cpus_per_trial, "num_gpus": search.gpus_per_trial}
    classifier, mixed = blueprint.classifier, min(search.head_real_shares) < 1
    ratio = classifier.ratio if mixed else 0.0
    parameters = configured(classifier) | {"ratio": ratio, "steps": 0}
    plan, shared = planned(parameters, classifier, search), ray.put(data)
    features = ray.remote(**resources)(encode_frozen).remote(plan, shared, blueprint)
    sweep, device = ray.remote(**resources)(_sweep), blueprint.base.device
    reported = sweep.remote(plan, shared, features, device, search.cpus_per_trial)
    return row_of(TRIAL, parameters, [ray.get(reported)])


def _sweep(plan: Plan, data: Data, features: Features, device: str, cpus: float) -> dict[str, Any]:
    use_threads(cpus)
    start = time.perf_counter()
    validation, _ = try_heads(plan, data, features, pick_device(device))
    return report(plan, 0, validation, time.perf_counter() - start)
