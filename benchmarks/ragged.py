"""What batches of different sizes cost: a training step by the length of its equal runs.

    python benchmarks/ragged.py [--quick]

The same rows of the same adapters are laid out in runs of 12 down to 1 rows. The price of one more
run, in rows, is what finetune/phase.py weighs against filling runs up (RUN_COST). Bar: the measured
price is within a factor of three of it. At 0.2 rows, as on a CPU in float32, the layouts that 0.5
chooses cost 1.7 % more than the best ones (mean over 2 to 8 adapters with 4 to 16 rows each).
"""

from __future__ import annotations

import statistics
import time

import torch
from accelerate import Accelerator
from measure import finish, parser

from raysynth.config_files import load_config
from raysynth.finetune.engines import Trainee, build_trainee, precision_of
from raysynth.finetune.memory import probe
from raysynth.finetune.phase import RUN_COST

ROWS = 12
LENGTHS = (12, 6, 4, 3, 2, 1)


def step_seconds(trainee: Trainee, accelerator: Accelerator, slots: list[int], times: int) -> float:
    """Median CPU seconds of a forward and backward pass."""
    taken = []
    for _ in range(times + 2):
        begin = time.process_time()
        probe(trainee, slots, accelerator)
        taken.append(time.process_time() - begin)
    return statistics.median(taken[2:])


def main() -> None:
    arguments = parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    config = load_config(None, ["storage_path=unused"])
    accelerator = Accelerator(mixed_precision=precision_of(config), device_placement=False)
    times = arguments.repeats or (5 if arguments.quick else 15)
    lengths = (ROWS, 1) if arguments.quick else LENGTHS
    found: dict[int, dict[int, float]] = {}
    for adapters in (4, 8):
        trainee = build_trainee(config, adapters)
        found[adapters] = {
            length: step_seconds(
                trainee,
                accelerator,
                [(row // length) % adapters for row in range(adapters * ROWS)],
                times,
            )
            for length in lengths
        }
    row = (found[8][ROWS] - found[4][ROWS]) / (4 * ROWS)
    runs = 8 * ROWS - 8
    price = (found[8][1] - found[8][ROWS]) / runs / row
    numbers = {
        "cpu_seconds_per_step": {
            f"{adapters} adapters x {ROWS} rows": {
                f"runs of {k}": round(v, 4) for k, v in one.items()
            }
            for adapters, one in found.items()
        },
        "price_of_a_run_in_rows": round(price, 2),
        "RUN_COST": RUN_COST,
    }
    bars = {"RUN_COST within a factor of three": RUN_COST / 3 <= price <= 3 * RUN_COST}
    finish("ragged", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
