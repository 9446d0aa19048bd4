"""Ray metrics of a run: each declared once, told to Ray where a Ray runs, and nowhere else.

Ray serves them on every node, beside its own, for Prometheus: `ray_<name>`, a counter with `_total`
behind it. Ray is not imported for them.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raysynth.json_lines import CONTEXT


@dataclass(frozen=True)
class Metric:
    """A number that is watched while a run works."""

    name: str
    kind: str
    """counter: it only grows, from each process's start; gauge: what is now."""
    unit: str
    meaning: str
    tags: tuple[str, ...] = ("run",)

    @property
    def exported(self) -> str:
        """Its name at the endpoint."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


IMAGES_GENERATED = Metric(
    "raysynth_images_generated", "counter", "images", "Drawn, scored and safe on the storage."
)
IMAGES_ACCEPTED = Metric(
    "raysynth_images_accepted", "gauge", "images", "Kept by the selection, once it is done."
)
ADAPTER_LOSS = Metric(
    "raysynth_adapter_loss",
    "gauge",
    "loss",
    "Mean training loss of an adapter's last steps; a series per group-cluster.",
    ("run", "adapter"),
)
TRIAL_WGA = Metric(
    "raysynth_trial_wga",
    "gauge",
    "accuracy, 0 to 1",
    "Worst-group accuracy on validation that a trial of the search has reached last.",
    ("run", "trial"),
)
STAGE_PROGRESS = Metric(
    "raysynth_stage_progress",
    "gauge",
    "share, 0 to 1",
    "Done of total of the stage at work; 1 when it is done.",
    ("run", "stage"),
)
STORAGE_RETRIES = Metric(
    "raysynth_storage_retries",
    "counter",
    "calls",
    "Calls of the storage that were tried again, on any node.",
    (),
)
STORAGE_ERRORS = Metric(
    "raysynth_storage_errors", "counter", "calls", "Calls of the storage that were given up.", ()
)
WORKER_RESTARTS = Metric(
    "raysynth_worker_restarts", "counter", "workers", "Workers, actors and nodes that were lost."
)
DECLARED = (
    IMAGES_GENERATED,
    IMAGES_ACCEPTED,
    ADAPTER_LOSS,
    TRIAL_WGA,
    STAGE_PROGRESS,
    STORAGE_RETRIES,
    STORAGE_ERRORS,
    WORKER_RESTARTS,
)

AGAIN_SECONDS = 5.0
"""Between two tellings of a gauge: Ray forgets one after two of its reports, 20 s."""

_open: dict[str, Any] = {}
_gauges: dict[tuple[Metric, tuple[tuple[str, str], ...]], float] = {}
_again: list[tuple[threading.Thread, threading.Event]] = []
_lock = threading.Lock()


def add(metric: Metric, amount: float = 1.0, **tags: str) -> None:
    """Let a counter grow; `tags`: those besides `run`."""
    if amount > 0:
        _tell(metric, "inc", amount, tags)


def put(metric: Metric, value: float, **tags: str) -> None:
    """Say what a gauge is now, and from now on until `rest`."""
    if _tell(metric, "set", value, tags):
        with _lock:
            _gauges[metric, tuple(tags.items())] = value
            if not _again:
                over = threading.Event()
                thread = threading.Thread(target=_tell_again, args=(over,), daemon=True)
                _again.append((thread, over))
                thread.start()


def rest() -> None:
    """Forget the gauges, before Ray is shut down."""
    with _lock:
        _gauges.clear()
        running, _again[:] = list(_again), []
    for thread, over in running:
        over.set()
        thread.join(1.0)


def _tell_again(over: threading.Event) -> None:
    while not over.wait(AGAIN_SECONDS):
        with _lock:
            gauges = dict(_gauges)
        for (metric, tags), value in gauges.items():
            _tell(metric, "set", value, dict(tags))


def _tell(metric: Metric, call: str, value: float, tags: dict[str, str]) -> bool:
    """Whether it was told: nothing happens without a Ray, and no fault of it disturbs a run."""
    ray = sys.modules.get("ray")
    with suppress(Exception):
        if ray is not None and ray.is_initialized():
            known = {"run": str(CONTEXT.get("run", "")), **tags}
            told = {key: known[key] for key in metric.tags}
            getattr(_ours(metric), call)(value, tags=told)
            return True
    return False


def _ours(metric: Metric) -> Any:
    """Ray's object of a metric, one per process."""
    if metric.name not in _open:
        from ray.util import metrics

        kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
        _open[metric.name] = kind(metric.name, metric.meaning, tag_keys=metric.tags)
    return _open[metric.name]


def table() -> str:
    """All of them as a Markdown table, for the documents."""
    head = "| at the endpoint | kind | unit | tags | meaning |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| `{m.exported}` | {m.kind} | {m.unit} | {', '.join(m.tags) or '-'} | {m.meaning} |\n"
        for m in DECLARED
    )
