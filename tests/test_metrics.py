"""Ray metrics: what a run tells is at the endpoint, with the right numbers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest

from raysynth import metrics
from raysynth.metrics import DECLARED, IMAGES_GENERATED, STAGE_PROGRESS
from tests.test_dashboard import expressions

SCRAPED = """
import io, json, time, urllib.request
from types import SimpleNamespace
import ray
from rich.console import Console
from raysynth import metrics
from raysynth.errors import StorageError
from raysynth.json_lines import CONTEXT
from raysynth.metrics import ADAPTER_LOSS, DECLARED, IMAGES_GENERATED, add, put
from raysynth.pipeline import _meter, _say_lost
from raysynth.progress import Progress
from raysynth.search.display import TrialProgress
from raysynth.selection.stage import _say
from raysynth.storage.files import patiently

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=100_000_000)
CONTEXT["run"], metrics.AGAIN_SECONDS = "mini", 0.5

def flaky(times):
    tries = []
    def call():
        tries.append(0)
        if len(tries) <= times:
            raise ConnectionResetError("away")
    return call

def in_a_worker():
    from raysynth import metrics  # a script's own globals travel as copies
    metrics.AGAIN_SECONDS = 0.5
    metrics.CONTEXT["run"] = "mini"
    patiently(flaky(1), "s3://bucket/x")
    put(ADAPTER_LOSS, 0.5, adapter="0-0")
    put(ADAPTER_LOSS, 0.25, adapter="0-0")
    time.sleep(120)  # a process's numbers go with it

waits = ray.remote(num_cpus=1)(in_a_worker).remote()
patiently(flaky(2), "s3://bucket/x")
try:
    patiently(flaky(9), "s3://bucket/x", 0)
except StorageError:
    pass
with Progress(Console(file=io.StringIO())) as display:
    display.meter = _meter
    display.stage("synthesis")
    display.update("images generated", 48, 64)
    add(IMAGES_GENERATED, 40)
    add(IMAGES_GENERATED, 8)
    _say_lost(display, "a node was lost")
    _say({"kept": 36, "rows": 64, "copies": {}, "kept_per_group": 9}, display)
    trial = SimpleNamespace(trial_id="t1", is_finished=lambda: False)
    TrialProgress().on_trial_result(1, [trial], trial, {"validation_wga": 0.625})
    port = ray.nodes()[0]["MetricsExportPort"]
    for _ in range(60):
        time.sleep(1)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            continue
        names = [each.exported for each in DECLARED] + ["ray_node_cpu_utilization"]
        if all(f"{name}{{" in text for name in names):
            break
print(json.dumps(text))
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


@pytest.mark.cluster
def test_a_run_is_seen_at_the_endpoint():
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["RAY_enable_metrics_collection"] = "1"
    environment["RAY_metrics_report_interval_ms"] = "1000"
    command = [sys.executable, "-c", SCRAPED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    text = json.loads(done.stdout.splitlines()[-1])
    assert {each.exported: series(text, each.exported) for each in DECLARED} == {
        "ray_raysynth_images_generated_total": {("mini",): 48.0},
        "ray_raysynth_images_accepted": {("mini",): 36.0},
        "ray_raysynth_adapter_loss": {("mini", "0-0"): 0.25},
        "ray_raysynth_trial_wga": {("mini", "t1"): 0.625},
        "ray_raysynth_stage_progress": {("mini", "synthesis"): 0.75},
        "ray_raysynth_storage_retries_total": {(): 3.0},
        "ray_raysynth_storage_errors_total": {(): 1.0},
        "ray_raysynth_worker_restarts_total": {("mini",): 1.0},
    }
    asked = {name for each in expressions() for name in re.findall(r"\bray_node_\w+", each)}
    there = set(re.findall(r"^ray_node_\w+", text, re.MULTILINE))
    assert {name for name in asked if "_gpus" not in name and "_gram" not in name} <= there


def test_without_ray_nothing_is_told_and_nothing_fails(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    metrics.add(IMAGES_GENERATED, 3)
    metrics.put(STAGE_PROGRESS, 0.5, stage="finetune")
    assert IMAGES_GENERATED.exported == "ray_raysynth_images_generated_total"


def test_tags_and_values_are_those_declared(monkeypatch):
    metrics.rest()
    told = []

    class Ours:
        def set(self, value: float, tags: dict[str, str]) -> None:
            told.append((value, tags))

    class Ray:
        @staticmethod
        def is_initialized() -> bool:
            return True

    monkeypatch.setitem(sys.modules, "ray", Ray)
    monkeypatch.setattr(metrics, "AGAIN_SECONDS", 0.05)
    monkeypatch.setitem(metrics.CONTEXT, "run", "birds")
    monkeypatch.setitem(metrics._open, STAGE_PROGRESS.name, Ours())
    metrics.put(STAGE_PROGRESS, 0.5, stage="finetune")
    metrics.put(STAGE_PROGRESS, 0.5)  # a tag is missing: no fault of a run's
    assert told == [(0.5, {"run": "birds", "stage": "finetune"})]
    deadline = time.monotonic() + 20
    while len(told) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told[1:4] == told[:1] * 3  # Ray forgets what is said once
    metrics.rest()
    told.clear()
    time.sleep(0.2)
    assert not told
