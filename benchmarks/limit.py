"""How near the UNet comes to what the machine can multiply, per batch size, and what the rest is.

    python benchmarks/limit.py [--quick] [--storage FOLDER]

One process per precision, one thread. `peak` is the fastest of some large matrix products, timed
again before every batch size; floating-point operations are counted by torch's FlopCounterMode on
the real optimizer step (12 rows per adapter, all targets of the default configuration) and on the
UNet's forward pass at generation: `mixed` adapters, and one adapter `folded` into the weights.
A profiled step is cut into kinds of work; the loss of a kind is its time less what its operations
would take at the peak. Bars: larger batches come no further from the peak, and the count per row
does not depend on the batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import finish, parser, run
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, flop_registry
from workload import Workload, clock, make_workload

from raysynth.adapters.fold import FoldedUNet
from raysynth.adapters.grouped_lora import inject
from raysynth.finetune import training
from raysynth.models.base import load_base
from raysynth.models.device import pick_device
from raysynth.models.family import layers_of
from raysynth.models.loading import round_weights

ROWS = (12, 24, 48, 96, 192)
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SIDES = (1024, 2048)
RUN = 4
"""Neighbouring rows of an adapter in a mixed batch, as generation lays them out."""
PROFILED = 96
PROFILES = 3
TOLERANCE = 0.9
KINDS = {
    "base convolutions": "convolutions of the frozen base",
    "adapters' convolutions": "grouped convolutions with few output channels (LoRA's A)",
    "adapters' products": "batched products over the rank (LoRA's A and B)",
    "base products": "matrix products of linear layers and attention",
    "copies and casts": "copying: transposes into runs, layouts, casts between precisions",
    "norms and softmax": "normalisations and softmax, forward and backward",
    "activations and sums": "activation functions, sums, products by elements",
    "other": "the optimizer, clipping, views, dispatch by Python and autograd",
}
"""Kinds of work -> in words."""
ELEMENTWISE = ("add", "mul", "silu", "gelu", "div", "sum", "sub", "where", "pow", "mean", "neg")
aten = torch.ops.aten


def kind_of(name: str, shapes: Sequence[Sequence[int]], rank: int) -> str:
    """The kind of an operator, by its name and its inputs' shapes."""
    if "convolution" in name:
        tensors = [shape for shape in shapes if len(shape) == 4]
        *_, x, weight = tensors
        small = x[1] != weight[1] or weight[0] == rank
        return "adapters' convolutions" if small else "base convolutions"
    if name.endswith("mm"):
        inner = {side for shape in shapes if len(shape) == 3 for side in shape[1:]}
        return "adapters' products" if rank in inner else "base products"
    if name in ("copy_", "cat", "_to_copy", "clone"):
        return "copies and casts"
    if ("norm" in name and "vector" not in name) or "softmax" in name:
        return "norms and softmax"
    return "activations and sums" if name.startswith(ELEMENTWISE) else "other"


def counted(work: Callable[[], Any], rank: int) -> Counter[str]:
    """Floating-point operations of a call, by kind."""
    found: Counter[str] = Counter()

    def watch(operator: Any) -> Callable[..., int]:
        def count(*given: Any, out_val: Any = None, **named: Any) -> int:
            number = int(flop_registry[operator](*given, out_val=out_val, **named))
            if operator is aten.convolution_backward:
                number = _convolution_backward(given, number)
            shapes = [one.shape for one in given if isinstance(one, torch.Tensor)]
            found[kind_of(operator.__name__, shapes, rank)] += number
            return number

        count._get_raw = True  # type: ignore[attr-defined]
        return count

    operators = [op for op in flop_registry if isinstance(op, torch._ops.OpOverloadPacket)]
    with FlopCounterMode(display=False, custom_mapping={op: watch(op) for op in operators}):
        work()
    return found


def _convolution_backward(given: Sequence[Any], number: int) -> int:
    """torch counts a grouped convolution's weight gradient as if every group saw all channels."""
    gradient, x, weight, *_, groups, wanted = given
    inputs = conv_flop_count(gradient.shape, weight.shape, x.shape, True) if wanted[0] else 0
    return int(inputs + (number - inputs) // groups)


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of the fastest large matrix product."""
    best = 0.0
    for side in SIDES:
        a, b = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
        a @ b
        for _ in range(3):
            begin = clock(device)
            a @ b
            best = max(best, 2 * side**3 / (clock(device) - begin))
    return best


def profiled(work: Callable[[], Any], rank: int, device: torch.device) -> dict[str, float]:
    """Share of each kind of work in the time of a call."""
    where = {"cuda": ProfilerActivity.CUDA}.get(device.type, ProfilerActivity.CPU)
    with profile(activities={ProfilerActivity.CPU, where}, record_shapes=True) as seen:
        work()
        clock(device)
    taken: Counter[str] = Counter()
    for event in seen.key_averages(group_by_input_shape=True):
        own = event.self_cpu_time_total if device.type == "cpu" else event.self_device_time_total
        taken[kind_of(event.key.split("::")[-1], event.input_shapes, rank)] += own
    return {kind: taken[kind] / taken.total() for kind in KINDS}


class Watched:
    """Takes the place of a step: warms up, times, counts operations, profiles."""

    def __init__(self, step: Callable[..., Any], rank: int, device: torch.device) -> None:
        self.step, self.rank, self.device = step, rank, device
        self.seconds: list[float] = []
        self.flops: Counter[str] = Counter()
        self.shares: list[dict[str, float]] = []
        self.calls = 0

    def __call__(self, *given: Any) -> Any:
        self.calls += 1
        kept: list[Any] = []

        def work() -> None:
            kept.append(self.step(*given))

        if self.calls == 2:
            self.flops = counted(work, self.rank)
        elif 2 < self.calls <= 2 + PROFILES:
            self.shares.append(profiled(work, self.rank, self.device))
        else:
            begin = clock(self.device)
            work()
            if self.calls > 2:
                self.seconds.append(clock(self.device) - begin)
        return kept[0]

    def result(self, rows: int, highest: float) -> dict[str, Any]:
        """Share of the peak, and the seconds that each kind of work loses against it."""
        seconds = median(self.seconds)
        lost = {
            kind: median(one[kind] for one in self.shares) * seconds - self.flops[kind] / highest
            for kind in KINDS
        }
        order = sorted(lost, key=lambda kind: -lost[kind])
        return {
            "seconds": round(seconds, 4),
            "gflop_per_row": round(self.flops.total() / rows / 1e9, 4),
            "gflop_per_second": round(self.flops.total() / seconds / 1e9, 1),
            "share_of_peak": round(self.flops.total() / seconds / highest, 4),
            "peak_gflop_per_second": round(highest / 1e9, 1),
            "lost": {kind: round(lost[kind] / seconds, 3) for kind in order},
        }


def one(storage: Path, precision: str, rows: Sequence[int], calls: int) -> dict[str, Any]:
    """All measurements in one precision, in this process."""
    torch.set_num_threads(1)
    sections = {"finetune": {"precision": precision, "steps": calls}, "base": {"dtype": precision}}
    work = make_workload(storage, 4 * -(-max(rows) // (4 * ROWS[0])), **sections)
    device = pick_device(work.config.base.device)
    rank, dtype = work.config.finetune.rank, PRECISIONS[precision]
    found: dict[str, Any] = {}
    for count in rows:
        print(f"{precision}, training, {count} rows", file=sys.stderr)
        highest = peak(dtype, device)
        watched = Watched(training.step, rank, device)
        train(watched, work, count // ROWS[0], storage)
        found[f"training, {count}"] = watched.result(count, highest)
    for name, forward in forwards(work):
        for count in rows:
            highest = peak(dtype, device)
            watched = Watched(forward, rank, device)
            for _ in range(calls):
                watched(count)
            found[f"{name}, {count}"] = watched.result(count, highest)
    return found


def train(watched: Watched, work: Workload, adapters: int, storage: Path) -> None:
    """Train the first adapters, every step watched."""
    training.step = watched
    try:
        with tempfile.TemporaryDirectory(dir=storage) as folder:
            failed = training.train_pack(work.pack(Path(folder), adapters))
    finally:
        training.step = watched.step
    if failed:
        raise SystemExit(f"limit: {failed}")


@torch.inference_mode()
def forwards(work: Workload) -> Iterator[tuple[str, Callable[[int], Any]]]:
    """The UNet's forward pass as generation calls it: of mixed adapters, and of one of them."""
    base, settings = load_base(work.config.base), work.config.finetune
    round_weights(base.model, base.dtype)
    targets = layers_of(base.family, settings.targets)
    lora = inject(base.model, targets, settings.rank, settings.alpha, len(work.jobs))

    def forward(unet: Any, rows: int) -> Any:
        x = torch.ones(rows, *base.latent_shape, device=base.device, dtype=unet.dtype)
        told = base.family.blank(unet, rows, base.shape.tokens)
        with torch.inference_mode(), base.autocast():
            return base.family.predict(unet, x, torch.ones(1, device=base.device), told)

    def mixed(rows: int) -> Any:
        lora.route([row // RUN % len(work.jobs) for row in range(rows)])
        return forward(base.model, rows)

    yield "generation, mixed adapters", mixed
    folded = FoldedUNet(base.model, lora).use(0)
    yield "generation, one adapter", partial(forward, folded)


def judge(found: dict[str, Any], rows: Sequence[int]) -> dict[str, bool]:
    """Bars, over all precisions and modes."""
    bars = {}
    for mode, taken in found.items():
        few, many = taken[str(min(rows))], taken[str(max(rows))]
        rises = many["share_of_peak"] >= TOLERANCE * few["share_of_peak"]
        bars[f"{mode}: no further from the peak with more rows"] = rises
        same = abs(many["gflop_per_row"] / few["gflop_per_row"] - 1) < 0.01
        bars[f"{mode}: operations per row do not depend on the batch"] = same
    return bars


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None)
    options.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.storage, *arguments.one)))
        return
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-limit-"))
    rows = (12, 48) if arguments.quick else ROWS
    calls = 2 + PROFILES + (arguments.repeats or (3 if arguments.quick else 9))
    found: dict[str, Any] = {}
    for precision in PRECISIONS:
        asked = json.dumps([precision, rows, calls])
        command = [sys.executable, __file__, "--storage", str(storage), "--one", asked]
        _, output = run(command, OMP_NUM_THREADS="1")
        for name, result in json.loads(output.splitlines()[-1]).items():
            mode, count = name.rsplit(", ", 1)
            found.setdefault(f"{precision}, {mode}", {})[count] = result
    profile_rows = str(min(max(rows), PROFILED))
    largest = {
        mode: [KINDS[kind] for kind in list(taken[profile_rows]["lost"])[:3]]
        for mode, taken in found.items()
    }
    numbers = {**found, f"three largest losses at {profile_rows} rows": largest}
    finish("limit", numbers, judge(found, rows), arguments.quick)


if __name__ == "__main__":
    main()
