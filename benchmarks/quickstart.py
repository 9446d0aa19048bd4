"""The quickstart as a user runs it: seconds per stage, peak memory of all processes, WGA.

    python benchmarks/quickstart.py [--storage FOLDER] [section.key=value ...]

Prints one JSON object. Exits 1 when a bar is missed: 8 GB for all processes together, 10 s without
a sign of life, 15 points of WGA over the best real-only reference. Wall time is printed, not
judged: it depends on what else the machine does (the bar on two quiet cores is 360 s).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Watch

MEMORY_BAR_GB = 8.0
SILENCE_BAR_SECONDS = 10.0
MARGIN_BAR = 0.15


def run(storage: str, overrides: list[str]) -> dict:
    """One run in a process of its own: wall seconds, longest silence, CPU seconds, peak memory."""
    command = [sys.executable, "-m", "raysynth", "run", f"storage_path={storage}", *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last, silence = time.monotonic(), 0.0
    assert process.stdout is not None
    with Watch(process.pid) as watch:
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            silence, last = max(silence, time.monotonic() - last), time.monotonic()
        process.wait()
    if process.returncode:
        raise SystemExit(f"raysynth run exited with {process.returncode}")
    return {
        "wall_seconds": round(watch.cost.wall_seconds, 1),
        "longest_silence_seconds": round(silence, 1),
        "cpu_seconds": round(watch.cost.cpu_seconds),
        "peak_memory_gb": round(watch.cost.peak_gb, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", default=None, help="folder of the run; default: a new one")
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    arguments = parser.parse_args()
    storage = arguments.storage or tempfile.mkdtemp(prefix="raysynth-bench-")
    numbers = run(storage, arguments.overrides)
    results = json.loads(next(Path(storage).glob("*/report/results.json")).read_text())
    wga = {name: round(m["wga"]["mean"], 4) for name, m in results["methods"].items()}
    best = max(value for name, value in wga.items() if name != "raysynth")
    margin = wga["raysynth"] - best
    again = run(storage, arguments.overrides)
    numbers |= {
        "seconds_per_stage": results["timings"],
        "wga": wga,
        "margin_over_best_reference": round(margin, 4),
        "second_run_wall_seconds": again["wall_seconds"],
    }
    print(json.dumps(numbers, indent=1))
    missed = (
        numbers["peak_memory_gb"] > MEMORY_BAR_GB
        or numbers["longest_silence_seconds"] > SILENCE_BAR_SECONDS
        or margin < MARGIN_BAR
    )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
