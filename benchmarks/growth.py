"""Time and memory of grouped training against the number of adapters, tiny base, one thread.

    python benchmarks/growth.py [--quick] [--storage FOLDER]

Every count trains in a fresh process by the code that Ray's workers run. `step` is one optimizer
step of all adapters that train at once. Bars: seconds per adapter and step do not rise from 4 to 64
adapters (by more than 5 %, what repetitions differ by), and a further adapter adds no more to the
process's peak memory than four times its own float32 weights (value, gradient, AdamW's two moments)
and its rows' activations. That slope is measured where what was freed has been given back to the
system; `process` is the slope of the whole process's peak, with what the allocator could not use
again. With 8 slots, 64 adapters take no more memory than 8 (--quick: 16 no more than 4 with 4). The
peak that packing estimates before it trains is within 15 % of the measured one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import finish, parser, run
from workload import clock, make_workload

from raysynth.finetune import memory, training

COUNTS = (4, 8, 16, 32, 64)
SLOTS, QUICK_SLOTS = 8, 4
LOOK = 2
"""The step before which freed memory is given back, so that what it needs is seen."""
TOLERANCE = 1.05
ESTIMATE = 0.15
"""Largest allowed difference of the estimated and the measured peak, relative."""


class Watched:
    """Takes the place of a step: times it, and follows the memory."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.seconds: list[float] = []
        self.peak = self.looked = self.held = 0.0
        self.loop: Any = None

    def __call__(self, loop: training.Loop, *given: Any) -> Any:
        self.loop, device, kept = loop, loop.alive.device, []

        def work() -> None:
            begin = clock(device)
            kept.append(self.step(loop, *given))
            self.seconds.append(clock(device) - begin)

        looks = len(self.seconds) == LOOK
        held = memory.held_bytes(device) if looks else 0.0
        peak = memory.peak_bytes(device, work)
        self.peak = max(self.peak, peak)
        if looks:
            self.looked, self.held = peak, held
        return kept[0]


def one(storage: Path, count: int, slots: int, steps: int) -> dict[str, Any]:
    """Train `count` adapters in this process, `slots` of them at once; what it took."""
    torch.set_num_threads(1)
    if slots < count:
        memory.slots_within = lambda *_: slots
    training.step = watched = Watched(training.step)
    work = make_workload(storage, max(COUNTS), finetune={"steps": steps})
    with tempfile.TemporaryDirectory(dir=storage) as folder:
        failed = training.train_pack(work.pack(Path(folder), count))
    if failed:
        raise SystemExit(f"growth: {failed}")
    rows, loop = work.jobs[0].batch, watched.loop
    footprint = loop.fit.footprint
    assert footprint is not None and loop.slots == slots
    return {
        "slots": slots,
        "rows": rows,
        "step_seconds": median(watched.seconds[LOOK + 1 :]),
        "peak_bytes": watched.peak,
        "weights_bytes": 4 * loop.trainee.rows.values.shape[1],
        "looked_bytes": watched.looked,
        "activation_bytes": (watched.looked - watched.held) / slots,
        "estimated_bytes": footprint.of(slots, slots * rows),
    }


def judge(
    found: dict[str, list[dict[str, Any]]], slots: int
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Tables and bars of the measured processes, by name."""

    def middle(name: str, what: str) -> float:
        return median(one[what] for one in found[name])

    numbers: dict[str, Any] = {
        name: {
            "repetitions": len(taken),
            "step_seconds": round(middle(name, "step_seconds"), 4),
            "per_adapter": round(middle(name, "step_seconds") / taken[0]["slots"], 5),
            "peak_mb": round(middle(name, "peak_bytes") / 1e6, 1),
            "estimated_mb": round(middle(name, "estimated_bytes") / 1e6, 1),
            "estimate_over_peak": round(
                middle(name, "estimated_bytes") / middle(name, "peak_bytes"), 3
            ),
        }
        for name, taken in found.items()
    }
    estimates = [case["estimate_over_peak"] for case in numbers.values()]
    few, *_, many, waiting = found
    more = int(many.split()[0]) - int(few.split()[0])
    ratio = numbers[many]["per_adapter"] / numbers[few]["per_adapter"]
    slope, process = (
        (middle(many, what) - middle(few, what)) / more / 1e6
        for what in ("looked_bytes", "peak_bytes")
    )
    weights = middle(few, "weights_bytes") / 1e6
    activations = middle(many, "activation_bytes") / 1e6
    queued = numbers[waiting]["peak_mb"] / numbers[f"{slots} adapters"]["peak_mb"]
    numbers |= {
        f"time per adapter and step, {many} : {few}": round(ratio, 3),
        "memory per further adapter, MB": {
            "measured": round(slope, 2),
            "process": round(process, 2),
            "allowed": round(4 * weights + activations, 2),
            "its weights": round(weights, 2),
            "its rows' activations": round(activations, 2),
        },
        f"peak, {waiting} against {slots} adapters": round(queued, 3),
    }
    bars = {
        "time per adapter does not rise": ratio <= TOLERANCE,
        "memory per adapter <= 4 x weights + activations": slope
        <= TOLERANCE * (4 * weights + activations),
        "waiting adapters take no memory": queued <= TOLERANCE,
        f"memory estimate within {ESTIMATE:.0%} of the peak": all(
            abs(ratio - 1) <= ESTIMATE for ratio in estimates
        ),
    }
    return numbers, bars


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None)
    options.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.storage, *arguments.one)))
        return
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-growth-"))
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    counts, slots, steps = ((4, 16), QUICK_SLOTS, 6) if arguments.quick else (COUNTS, SLOTS, 8)
    make_workload(storage, max(COUNTS))
    cases = {f"{n} adapters": (n, n) for n in counts}
    cases[f"{max(counts)} adapters, {slots} slots"] = (max(counts), slots)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for number in range(repeats):
        for name, (count, at_once) in cases.items():
            print(f"repetition {number + 1} of {repeats}: {name}", file=sys.stderr)
            asked = json.dumps([count, at_once, steps])
            command = [sys.executable, __file__, "--storage", str(storage), "--one", asked]
            _, output = run(command, OMP_NUM_THREADS="1")
            found[name].append(json.loads(output.splitlines()[-1]))
            print(output, file=sys.stderr)
    numbers, bars = judge(found, slots)
    finish("growth", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
