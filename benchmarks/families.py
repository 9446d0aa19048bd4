"""A grouped training step of 8 adapters against PEFT one by one, for every family of base models.

    python benchmarks/families.py [--quick] [--repeats N]
    python benchmarks/families.py --published stable_diffusion_xl [--pixels 256]

Networks are tiny with random weights of the real classes (tests/models/random_families.py), or with
`--published` one of a family's published shapes, with gradient checkpointing. Both sides take the
same step of the same adapters on the same noisy latents: all kinds of layers of the family, rank 8,
each adapter with its own clipping and AdamW; what they lose is compared. They take turns, in one
process; time is CPU seconds of one thread, or seconds of an accelerator. Bars: 2 times PEFT's rate
on tiny models of each family; 1.5 times on published shapes, within 20 GB.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import checkout  # noqa: F401
import torch
from measure import finish, parser
from peft import LoraConfig
from torch import Tensor
from workload import clock

from raysynth.adapters.grouped_lora import inject
from raysynth.adapters.rows import clip_rows, flatten
from raysynth.finetune import memory
from raysynth.models.base import load_base
from raysynth.models.condition import Condition
from raysynth.models.device import pick_device, pick_dtype
from raysynth.models.family import FAMILIES, Base, Family, layers_of
from raysynth.models.prediction import Prediction
from raysynth.models.settings import BaseConfigSection
from raysynth.planning.sizes import published_shape
from tests.models.random_families import WRITERS, write_family

ADAPTERS, RANK = 8, 8
ROWS = 4
"""Of an adapter in a step, on tiny models; of published shapes one."""
RATE = 1e-3
BETAS = (0.9, 0.99)
TINY_BAR, PUBLISHED_BAR, MEMORY_BAR = 2.0, 1.5, 20.0
APART = 1e-3
"""Largest allowed difference of a loss, relative."""


class Work:
    """What a step of all adapters is given: rows of noisy latents, and what they are told."""

    def __init__(self, base: Base, rows: int, tokens: int) -> None:
        dice = torch.Generator().manual_seed(1)
        count = ADAPTERS * rows
        self.base, self.rows, device = base, rows, base.device
        self.x = torch.randn(count, *base.latent_shape, generator=dice).to(device)
        self.target = torch.randn(count, *base.latent_shape, generator=dice).to(device)
        self.timestep = torch.linspace(50, 950, count).round().to(device)
        blank = base.family.blank(base.model, count, tokens)
        self.told = Condition({name: _filled(t, dice) for name, t in blank.tensors.items()})

    def losses(self, network: Any, rows: slice) -> Tensor:
        """[rows] mean squared errors."""
        told = Condition({name: t[rows] for name, t in self.told.tensors.items()})
        with self.base.autocast():
            x = self.x[rows].to(network.dtype)
            said = self.base.family.predict(network, x, self.timestep[rows], told)
        return (said.float() - self.target[rows]).square().flatten(1).mean(1)


def _filled(tensor: Tensor, dice: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=dice).to(tensor.device, tensor.dtype)


Starts = list[dict[str, Tensor]]
"""Of each adapter, by PEFT's names: where both sides begin."""


def grouped(work: Work) -> tuple[Callable[[], list[float]], Starts]:
    """A step of all adapters at once, on the base's own network; where they start."""
    base = work.base
    targets = layers_of(base.family, tuple(base.family.targets))
    lora = inject(base.model, targets, RANK, float(RANK), ADAPTERS, base.prefix)
    starts: Starts = []
    for position in range(ADAPTERS):
        dice = torch.Generator().manual_seed(position)
        lora.reset(position, dice)
        for layer in lora.layers.values():  # B is not zero, or the first step would show nothing
            layer.B.data[position] = torch.randn(layer.B.shape[1:], generator=dice) * 0.01
        starts.append(
            {
                f"{name}.{part}.default.weight": stack[position].detach().clone()
                for name, layer in lora.layers.items()
                for part, stack in (("lora_A", layer.A), ("lora_B", layer.B))
            }
        )
    rows = flatten(lora.parameters(), ADAPTERS)
    optimizer = torch.optim.AdamW(
        [{"params": [row]} for row in rows.parameters], RATE, BETAS, fused=True
    )
    lora.route([position for position in range(ADAPTERS) for _ in range(work.rows)])

    def step() -> list[float]:
        rows.gradients.zero_()
        losses = work.losses(base.model, slice(None)).view(ADAPTERS, work.rows).mean(1)
        losses.sum().backward()
        clip_rows(rows.gradients, 1.0)
        optimizer.step()
        return losses.tolist()

    return step, starts


def one_by_one(work: Work, starts: Starts) -> Callable[[], list[float]]:
    """The same by PEFT, adapter after adapter, on a network with the layers of one."""
    network = work.base.model
    names = sorted({key.partition(".lora_")[0] for key in starts[0]})
    network.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names))
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    trained, start = list(named.values()), [[each[name] for name in named] for each in starts]
    optimizers: list[Any] = [None] * ADAPTERS

    def step() -> list[float]:
        found = []
        for position in range(ADAPTERS):
            for parameter, value in zip(trained, start[position], strict=True):
                parameter.data, parameter.grad = value, None
            if optimizers[position] is None:
                optimizers[position] = torch.optim.AdamW(trained, RATE, BETAS, fused=True)
            rows = slice(position * work.rows, (position + 1) * work.rows)
            loss = work.losses(network, rows).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizers[position].step()
            found.append(loss.item())
        return found

    return step


def loaded(folder: Path) -> Base:
    """A base's network."""
    return load_base(BaseConfigSection(name=str(folder)), ("model",))


def tiny(name: str, repeats: int) -> dict[str, Any]:
    """Both sides on a tiny model of a family."""
    with TemporaryDirectory() as folder:
        place = write_family(name, Path(folder) / name)
        ours, theirs = (loaded(place) for _ in range(2))
    step, starts = grouped(Work(ours, ROWS, 24))
    sides = {"grouped": step, "peft": one_by_one(Work(theirs, ROWS, 24), starts)}
    return turns(sides, ours.device, repeats)


def published(family: Family, pixels: int, repeats: int) -> dict[str, Any]:
    """Both sides on a family's published shapes; one network, PEFT's layers put on it last."""
    device = pick_device()
    dtype = pick_dtype("auto", device)
    base = _random(family, pixels, device, dtype)
    tokens = min(base.shape.tokens, 77)
    ours, starts = grouped(Work(base, 1, tokens))
    found = measured(ours, device, repeats)
    for name, layer in [
        (n, m) for n, m in base.model.named_modules() if type(m).__name__.startswith("Grouped")
    ]:
        base.model.set_submodule(name, layer.base)
    theirs = measured(one_by_one(Work(base, 1, tokens), starts), device, repeats)
    return _compared({"grouped": found, "peft": theirs})


def _random(family: Family, pixels: int, device: torch.device, dtype: torch.dtype) -> Base:
    shape = published_shape(family)
    with torch.device(device):
        network = family.build(shape.at(pixels)).to(dtype).eval().requires_grad_(False)
    network.enable_gradient_checkpointing()
    network.train()  # checkpoints are made in training alone
    sizes = family.published.shape.at(pixels)
    parts = {part: None for role in ("vae", "text", "scheduler") for part in family.roles[role]}
    parts |= {family.roles["model"][0]: network}
    base = Base(family, parts, sizes, device, dtype)
    base.__dict__["prediction"] = Prediction("flow_prediction", 1000, None)
    return base


def turns(
    sides: dict[str, Callable[[], list[float]]], device: torch.device, repeats: int
) -> dict[str, Any]:
    """Both sides' steps in turns, after one of each that counts for nothing."""
    found: dict[str, Any] = {
        name: {"losses": step(), "seconds": []} for name, step in sides.items()
    }
    for _ in range(repeats):
        for name, step in sides.items():
            begin = clock(device)
            found[name]["losses"] = step()
            found[name]["seconds"].append(clock(device) - begin)
    return _compared(found)


def measured(step: Callable[[], list[float]], device: torch.device, repeats: int) -> dict[str, Any]:
    """One side's steps; the first counts for nothing."""
    found: dict[str, Any] = {"seconds": []}

    def all_steps() -> None:
        found["losses"] = step()
        for number in range(repeats):
            print(f"step {number + 1} of {repeats}", file=sys.stderr)
            begin = clock(device)
            found["losses"] = step()
            found["seconds"].append(clock(device) - begin)

    found["peak_gb"] = memory.peak_bytes(device, all_steps) / 1e9
    return found


def _compared(found: dict[str, Any]) -> dict[str, Any]:
    pairs = zip(found["grouped"]["losses"], found["peft"]["losses"], strict=True)
    seconds = {name: side["seconds"] for name, side in found.items()}
    return {
        "ratio": round(
            statistics.median(seconds["peft"]) / statistics.median(seconds["grouped"]), 2
        ),
        "ratio_least": round(min(seconds["peft"]) / max(seconds["grouped"]), 2),
        "loss_apart": max(abs(one - other) / other for one, other in pairs),
        "seconds": {name: round(statistics.median(each), 4) for name, each in seconds.items()},
        **{f"{n}_peak_gb": round(s["peak_gb"], 2) for n, s in found.items() if "peak_gb" in s},
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--published", choices=FAMILIES.names, help="published shapes of one")
    options.add_argument("--pixels", type=int, default=256, help="of --published")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.published:
        found = published(FAMILIES[given.published], given.pixels, given.repeats or 1)
        bars = {
            f"at least {PUBLISHED_BAR} times PEFT's rate": found["ratio"] >= PUBLISHED_BAR,
            f"within {MEMORY_BAR:.0f} GB": found["grouped_peak_gb"] <= MEMORY_BAR,
            "losses equal PEFT's": found["loss_apart"] < 20 * APART,
        }
        numbers = {"family": given.published, "pixels": given.pixels, **found}
        finish(f"families_{given.published}", numbers, bars, given.quick)
    repeats = given.repeats or (5 if given.quick else 15)
    numbers = {name: tiny(name, repeats) for name in WRITERS}
    bars = {f"{name}: {TINY_BAR}": each["ratio"] >= TINY_BAR for name, each in numbers.items()}
    bars |= {f"{n}: losses": each["loss_apart"] < APART for n, each in numbers.items()}
    finish("families", numbers, bars, given.quick)


if __name__ == "__main__":
    main()
