"""Ray metrics: what a run tells is at the endpoint, with the right numbers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from raysynth import metrics
from raysynth.metrics import DECLARED, IMAGES_GENERATED, STAGE_PROGRESS
from tests.test_dashboard import expressions
from tests.test_pipeline import MINIATURE

SCRAPED = """
import json, sys, time, urllib.request
import ray
from raysynth.config.files import load_config
from raysynth.errors import StorageError
from raysynth.pipeline import run_pipeline
from raysynth.storage.files import patiently

ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False,
         object_store_memory=300_000_000)
tries = []
def flaky():
    tries.append(0)
    if len(tries) < 3:
        raise ConnectionResetError("away")
patiently(flaky, "s3://bucket/x")
def gone():
    raise TimeoutError
try:
    patiently(gone, "s3://bucket/x", 0)
except StorageError:
    pass
config = load_config(None, sys.argv[1:])
folder = run_pipeline(config, until="selection").folder("selection")
kept = json.load(open(f"{folder}/../manifest.json"))["stages"]["selection"]["facts"]["kept"]
port = ray.nodes()[0]["MetricsExportPort"]
for _ in range(60):
    time.sleep(1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    if 'raysynth_stage_progress{' in text and 'stage="selection"' in text:
        break
print(json.dumps({"kept": kept, "text": text}))
"""


def series(text: str, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric at the endpoint by its own tags; processes summed."""
    found: dict[tuple[str, ...], float] = {}
    own = next(each.tags for each in DECLARED if each.exported == name)
    for line in text.splitlines():
        if line.startswith(f"{name}{{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            key = tuple(labels[tag] for tag in own)
            found[key] = found.get(key, 0.0) + float(line.rpartition(" ")[2])
    return found


@pytest.mark.slow
@pytest.mark.cluster
def test_a_run_is_seen_at_the_endpoint(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["RAY_enable_metrics_collection"] = "1"
    environment["RAY_metrics_report_interval_ms"] = "1000"
    given = [f"storage_path={tmp_path}", *MINIATURE]
    command = [sys.executable, "-c", SCRAPED, *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    found = {each.exported: series(told["text"], each.exported) for each in DECLARED}
    assert found["ray_raysynth_images_generated_total"] == {("mini",): 64.0}
    assert found["ray_raysynth_images_accepted"] == {("mini",): told["kept"]}
    losses = found["ray_raysynth_adapter_loss"]
    assert {run for run, _ in losses} == {"mini"} and ("mini", "0-0") in losses
    assert all(0 < loss < 10 for loss in losses.values())
    done = {stage: share for (_, stage), share in found["ray_raysynth_stage_progress"].items()}
    stages = ("ingest", "clustering", "finetune", "synthesis", "selection")
    assert {stage: done[stage] for stage in stages} == dict.fromkeys(stages, 1.0)
    assert found["ray_raysynth_storage_retries_total"] == {(): 2.0}
    assert found["ray_raysynth_storage_errors_total"] == {(): 1.0}
    asked = {name for each in expressions() for name in re.findall(r"\bray_node_\w+", each)}
    there = set(re.findall(r"^ray_node_\w+", told["text"], re.MULTILINE))
    assert {name for name in asked if "_gpus" not in name and "_gram" not in name} <= there


def test_without_ray_nothing_is_told_and_nothing_fails(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    metrics.add(IMAGES_GENERATED, 3)
    metrics.put(STAGE_PROGRESS, 0.5, stage="finetune")
    assert IMAGES_GENERATED.exported == "ray_raysynth_images_generated_total"


def test_tags_and_values_are_those_declared(monkeypatch):
    told = []

    class Ours:
        def set(self, value: float, tags: dict[str, str]) -> None:
            told.append((value, tags))

    class Ray:
        @staticmethod
        def is_initialized() -> bool:
            return True

    monkeypatch.setitem(sys.modules, "ray", Ray)
    monkeypatch.setitem(metrics.CONTEXT, "run", "birds")
    monkeypatch.setitem(metrics._open, STAGE_PROGRESS.name, Ours())
    metrics.put(STAGE_PROGRESS, 0.5, stage="finetune")
    metrics.put(STAGE_PROGRESS, 0.5)  # a tag is missing: no fault of a run's
    assert told == [(0.5, {"run": "birds", "stage": "finetune"})]
