"""What forms of adapters cost in training: a step of eight, packed, and one by one with PEFT.

    python benchmarks/forms.py [--quick]

Forward and backward pass of 8 adapters x 12 rows on the embedded base at the default rank: LoRA,
rsLoRA and DoRA; eight adapters of which one has four times the rank, so that all are filled up to
it; and PEFT's LoRA and DoRA, which see one adapter's rows at a time. CPU seconds, float32, one
thread, median over turns. Bar: packing gains as much with DoRA as with LoRA, within a tenth.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from measure import finish, parser
from peft import LoraConfig
from workload import pack_of

from raysynth.config.files import load_config
from raysynth.finetune.engines import build_trainee
from raysynth.finetune.memory import probe
from raysynth.groups.groups import Groups
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import layers_of

ADAPTERS, ROWS = 8, 12
KEPT = 0.9
KINDS: dict[str, list[str]] = {
    "lora": [],
    "rslora": ["finetune.rslora=true"],
    "dora": ["finetune.dora=true"],
    "lora, one of rank 32": ["finetune.overrides={0-0: {rank: 32}}"],
}
Step = Callable[[], None]


def configuration(more: list[str]) -> Any:
    """That of a kind."""
    return load_config(None, ["storage_path=unused", "finetune.precision=float32", *more])


def packed(more: list[str], accelerator: Accelerator, base: Any) -> Step:
    """A step of all adapters at once."""
    config = configuration(more)
    pack = pack_of(config, [], Groups(("",), ("",), ("",), ("",)), "", "")
    trainee = build_trainee(pack, ADAPTERS)
    for slot in range(ADAPTERS):
        own = config.finetune.most_rank if slot == 0 else None
        job: Any = SimpleNamespace(rank=own, alpha=None)
        trainee.enter(slot, job, torch.Generator().manual_seed(slot))
    slots = [slot for slot in range(ADAPTERS) for _ in range(ROWS)]
    return lambda: probe(trainee, slots, base, accelerator)


def with_peft(dora: bool, accelerator: Accelerator, base: Any) -> Step:
    """A step of all adapters, one after another: one of PEFT's, as often as there are adapters."""
    settings = configuration([]).finetune
    network = load_base(configuration([]).base, ("model",)).model.requires_grad_(False)
    ends = [end for ends in layers_of(base.family, settings.targets).values() for end in ends]
    network.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=ends, use_dora=dora)
    )
    denoiser = Denoiser(base, network, accelerator.autocast)
    noisy = torch.zeros(ROWS, *base.latent_shape)
    told = base.condition([""]).take([0] * ROWS)

    def step() -> None:
        for _ in range(ADAPTERS):
            denoiser(noisy, torch.ones(ROWS), told).raw.square().mean().backward()
            network.zero_grad()

    return step


def seconds(steps: dict[str, Step], times: int) -> dict[str, float]:
    """CPU seconds of each, in turns: the machine's pace drifts."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(times + 1):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            taken[name].append(time.process_time() - begin)
    return {name: statistics.median(found[1:]) for name, found in taken.items()}


def main() -> None:
    arguments = parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    base = load_base(configuration([]).base, ("text", "scheduler"))
    accelerator = Accelerator(mixed_precision="no", cpu=True, device_placement=False)
    steps = {name: packed(more, accelerator, base) for name, more in KINDS.items()}
    for name, dora in (("PEFT, lora", False), ("PEFT, dora", True)):
        steps[name] = with_peft(dora, accelerator, base)
    found = seconds(steps, arguments.repeats or (3 if arguments.quick else 9))
    ratios = {kind: found[f"PEFT, {kind}"] / found[kind] for kind in ("lora", "dora")}
    numbers = {
        "cpu_seconds_per_step": {name: round(value, 3) for name, value in found.items()},
        "over_lora": {name: round(found[name] / found["lora"], 2) for name in KINDS},
        "times_as_fast_as_peft": {kind: round(ratio, 2) for kind, ratio in ratios.items()},
    }
    kept = ratios["dora"] / ratios["lora"]
    bars = {f"DoRA's gain over PEFT >= {KEPT} of LoRA's": kept >= KEPT}
    finish("forms", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
