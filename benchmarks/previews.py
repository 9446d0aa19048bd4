"""What a preview of an adapter in training costs, in its own optimizer steps: tiny base.

    python benchmarks/previews.py [--quick] [--repeats N]

Eight adapters train in one process, on one thread, by the code that Ray's workers run, with a
preview of each (four images in eight steps of guided DDIM) every few steps. `step` is one optimizer
step of one adapter, its share of the pack's; seconds are the thread's own, so that other work on
the machine is not in them. `share at N`: previews' part of a training's time where
`finetune.preview_steps` is N.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import finish, parser
from workload import make_workload

from raysynth.finetune import training

ADAPTERS, EVERY = 8, 10
SETTINGS = (50, 200)


def clocked(call: Callable[..., Any], kept: list[float]) -> Callable[..., Any]:
    """The function, whose seconds of this thread are kept."""

    def timed(*given: Any) -> Any:
        begin = time.thread_time()
        found = call(*given)
        kept.append(time.thread_time() - begin)
        return found

    return timed


def measured(steps: int) -> tuple[float, float]:
    """Median seconds of one adapter's step, and of one adapter's preview."""
    plain_step, plain_drawn = training.step, training.drawn
    taken: list[float] = []
    drawn: list[float] = []
    training.step, training.drawn = clocked(plain_step, taken), clocked(plain_drawn, drawn)
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = {"steps": steps, "preview_steps": EVERY}
            work = make_workload(Path(folder), ADAPTERS, finetune=settings)
            failed = training.train_pack(work.pack(Path(folder) / "out"))
    finally:
        training.step, training.drawn = plain_step, plain_drawn
    if failed:
        raise SystemExit(f"previews: {failed}")
    return median(taken) / ADAPTERS, median(drawn)


def main() -> None:
    """Measure and print."""
    given = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    repeats = given.repeats or (1 if given.quick else 5)
    pairs = [measured(20 if given.quick else 40) for _ in range(repeats)]
    step, preview = (median(values) for values in zip(*pairs, strict=True))
    ratios = [own / one for one, own in pairs]
    numbers: dict[str, Any] = {
        "repetitions": repeats,
        "step_ms": round(1000 * step, 1),
        "preview_ms": round(1000 * preview, 1),
        "preview : step": round(median(ratios), 2),
        "preview : step, range": [round(min(ratios), 2), round(max(ratios), 2)],
    }
    for every in SETTINGS:
        numbers[f"share at {every}"] = round(preview / (every * step + preview), 3)
    finish("previews", numbers, {}, given.quick)


if __name__ == "__main__":
    main()
