"""What batches of different sizes cost: a training step by the length of its equal runs.

    python benchmarks/ragged.py [--quick]

The same rows of the same adapters are laid out in runs of 12 down to 1 rows. The price of one more
run, in rows, is what finetune/phase.py weighs against filling runs up (RUN_COST). Bar: the layouts
that RUN_COST chooses cost at most 2 % more, at the measured price, than the best ones; mean over
random batches of 2 to 8 adapters with 4 to 16 rows each.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from measure import finish, parser
from workload import pack_of

from raysynth.config.files import load_config
from raysynth.finetune.engines import Trainee, build_trainee, precision_of
from raysynth.finetune.memory import probe
from raysynth.finetune.phase import RUN_COST, layout_cost, run_length
from raysynth.groups.groups import Groups
from raysynth.models.base import load_base
from raysynth.models.family import Base

ROWS = 12
LENGTHS = (12, 6, 4, 3, 2, 1)
BATCHES = 2000
EXCESS_BAR = 0.02
PRICES = (0.15, 0.3, 0.45, 0.6)
"""At which RUN_COST's layouts are weighed besides the measured price."""


def step_seconds(
    trainees: dict[int, Trainee],
    base: Base,
    accelerator: Accelerator,
    lengths: Sequence[int],
    times: int,
) -> dict[tuple[int, int], list[float]]:
    """(adapters, length of runs) -> CPU seconds of its forward and backward passes, in turns."""
    taken: dict[tuple[int, int], list[float]] = defaultdict(list)
    for _ in range(times + 2):
        for adapters, trainee in trainees.items():
            for length in lengths:
                slots = [(row // length) % adapters for row in range(adapters * ROWS)]
                begin = time.process_time()
                probe(trainee, slots, base, accelerator)
                taken[adapters, length].append(time.process_time() - begin)
    return {case: seconds[2:] for case, seconds in taken.items()}


def run_price(taken: dict[tuple[int, int], list[float]]) -> float:
    """One more run's cost in rows: median over the turns, for the machine's pace drifts."""
    turns = zip(taken[4, ROWS], taken[8, ROWS], taken[8, 1], strict=True)
    runs, rows = 8 * ROWS - 8, 4 * ROWS
    return statistics.median(
        (ones - eight) / runs * rows / (eight - four) for four, eight, ones in turns
    )


def excess(price: float) -> float:
    """Mean relative cost, at this price of a run, of RUN_COST's layouts over the best ones."""
    draw = random.Random(0)
    found = []
    for _ in range(BATCHES):
        counts = [draw.randint(4, 16) for _ in range(draw.randint(2, 8))]
        best = layout_cost(counts, run_length(counts, price), price)
        found.append(layout_cost(counts, run_length(counts), price) / best - 1)
    return statistics.mean(found)


def main() -> None:
    arguments = parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    config = load_config(None, ["storage_path=unused"])
    precision = precision_of(config.finetune, config.base)
    accelerator = Accelerator(mixed_precision=precision, device_placement=False)
    times = arguments.repeats or (5 if arguments.quick else 15)
    lengths = (ROWS, 1) if arguments.quick else LENGTHS
    pack = pack_of(config, [], Groups(("",), ("",), ("",), ("",)), "", "")
    trainees = {adapters: build_trainee(pack, adapters) for adapters in (4, 8)}
    base = load_base(config.base, ("text", "scheduler"))
    taken = step_seconds(trainees, base, accelerator, lengths, times)
    price = run_price(taken)
    lost = excess(price)
    numbers = {
        "cpu_seconds_per_step": {
            f"{adapters} adapters x {ROWS} rows, runs of {length}": round(
                statistics.median(seconds), 4
            )
            for (adapters, length), seconds in taken.items()
        },
        "price_of_a_run_in_rows": round(price, 2),
        "RUN_COST": RUN_COST,
        "cost_over_best_layout": round(1 + lost, 4),
        "cost_over_best_layout_at": {other: round(1 + excess(other), 4) for other in PRICES},
    }
    bars = {f"RUN_COST's layouts within {EXCESS_BAR:.0%} of the best": lost <= EXCESS_BAR}
    finish("ragged", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
