"""How every benchmark measures: whole processes, wall and CPU seconds, peak memory, medians.

Wall seconds depend on what else the machine does, CPU seconds less so; ratios are always of two
measurements of one run, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Cost:
    """What one piece of work took; memory is the peak of the summed PSS of all processes."""

    wall_seconds: float
    cpu_seconds: float
    peak_gb: float


class Watch:
    """Adds up CPU seconds and memory of a process and all its descendants, sampled.

    Summing a large process's PSS walks its page tables; of Ray's twenty processes it took a quarter
    of a core from those that it measured when done four times a second. So memory is looked at no
    more often than takes `MEMORY_SHARE` of a core.
    """

    MEMORY_SHARE = 0.02

    def __init__(self, pid: int, every: float = 0.25) -> None:
        self.pid, self.every = pid, every
        self.cpu: dict[tuple[int, float], float] = {}
        self.peak = self._next_look = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Watch:
        self._start = time.monotonic()
        self._sample()
        self._before = sum(self.cpu.values())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        wall = time.monotonic() - self._start
        self.cost = Cost(wall, sum(self.cpu.values()) - self._before, self.peak)

    def _follow(self) -> None:
        while not self._stop.wait(self.every):
            self._sample()

    def _sample(self) -> None:
        try:
            process = psutil.Process(self.pid)
            processes = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                self.cpu[process.pid, process.create_time()] = times.user + times.system
        if time.monotonic() >= self._next_look:
            self._look(processes)

    def _look(self, processes: list[psutil.Process]) -> None:
        begin, total = time.monotonic(), 0
        for process in processes:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        self.peak = max(self.peak, total / 1e9)
        now = time.monotonic()
        self._next_look = now + (now - begin) / self.MEMORY_SHARE


def run(command: Sequence[str], **environment: str) -> tuple[Cost, str]:
    """Run a command in processes of its own: its cost and standard output; its errors pass through.

    Raises SystemExit when it fails.
    """
    env = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    with Watch(process.pid) as watch:
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ... exited with {process.returncode}")
    return watch.cost, output


def timed(work: Callable[[], Any]) -> Cost:
    """Cost of a call in this process (memory included, descendants too)."""
    with Watch(os.getpid()) as watch:
        work()
    return watch.cost


def medians(costs: Sequence[Cost]) -> dict[str, float]:
    """Median and range of repeated measurements, ready to be printed."""
    summary: dict[str, float] = {"repetitions": len(costs)}
    for name in asdict(costs[0]):
        values = [getattr(cost, name) for cost in costs]
        summary[name] = round(statistics.median(values), 3)
        summary[f"{name}_min"] = round(min(values), 3)
        summary[f"{name}_max"] = round(max(values), 3)
    return summary


def machine() -> dict[str, Any]:
    """The machine that the numbers came from."""
    import torch

    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "bf16_tiles": torch.cpu._is_amx_tile_supported(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def precision() -> str:
    """What raysynth computes in on this machine unless told otherwise: float32, bfloat16 ..."""
    from raysynth.models.device import pick_device, pick_dtype

    return str(pick_dtype("auto", pick_device("auto"))).removeprefix("torch.")


def parser(about: str) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    options = argparse.ArgumentParser(description=about.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="smaller work, for `make bench`")
    options.add_argument(
        "--repeats", type=int, default=None, help="repetitions; default: 5, quick 1"
    )
    return options


def finish(name: str, numbers: dict[str, Any], bars: dict[str, bool], quick: bool) -> None:
    """Print the numbers as JSON, keep full runs in benchmarks/results, exit 1 on a missed bar.

    `bars`: what is judged -> whether it holds.
    """
    report = report_of(name, numbers, bars)
    print(json.dumps(report, indent=1))
    if not quick:
        keep(report)
    sys.exit(0 if all(bars.values()) else 1)


def report_of(name: str, numbers: dict[str, Any], bars: dict[str, bool]) -> dict[str, Any]:
    """A benchmark's numbers and bars, with the machine that they came from."""
    return {"benchmark": name, "machine": machine(), "numbers": numbers, "bars": bars}


def keep(report: dict[str, Any]) -> None:
    """Write a report below benchmarks/results, called as the benchmark.

    Those of a machine whose default precision is float32 lie below `float32`.
    """
    folder = RESULTS / "float32" if precision() == "float32" else RESULTS
    path = folder / f"{report['benchmark']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
