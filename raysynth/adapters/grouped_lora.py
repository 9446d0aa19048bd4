"""Many LoRA adapters on one frozen UNet: stacked matrices, routed per batch row.

LoRA (Hu et al. 2021, eq. 3): h = W0 x + (alpha / r) B A x. Here A and B carry a leading adapter
dimension, so that a batch whose rows belong to different adapters costs one `bmm` (or one grouped
convolution) per matrix instead of one UNet pass per adapter. Files are PEFT's, as diffusers writes
and reads them.

Shape suffixes: P adapters, K runs of b equal rows (B = K b), I in, O out, r rank, L pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import safetensors
import safetensors.torch
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F

from raysynth.adapters.damaged import AGAIN, check_finite
from raysynth.errors import ConfigError, DamagedError, ModelError
from raysynth.storage.files import make_folder, open_storage, write_atomic
from raysynth.storage.hashes import note_bytes
from raysynth.terminal import masked


@dataclass
class Route:
    """Which adapter each run of equal batch rows uses; shared by all layers of a UNet."""

    rows: int
    runs: Tensor
    """[K] int64 adapter of each run, 0 where there is none."""
    scale: Tensor
    """[K, 1, 1] alpha / r, 0 where there is none."""
    every: bool
    """The runs are all adapters once, in order: the stacks are used as they are."""


@dataclass
class _Shared:
    scaling: float
    route: Route | None = None


class _Grouped(nn.Module):
    """A frozen layer with stacked low-rank updates."""

    base: nn.Linear | nn.Conv2d

    def __init__(
        self, base: nn.Linear | nn.Conv2d, adapters: int, rank: int, shared: _Shared
    ) -> None:
        super().__init__()
        self.base, self.shared = base, shared
        outputs, *kernel = base.weight.shape
        ones = [1] * (len(kernel) - 1)
        device = base.weight.device
        self.A = nn.Parameter(torch.zeros([adapters, rank, *kernel], device=device))
        self.B = nn.Parameter(torch.zeros([adapters, outputs, rank, *ones], device=device))

    def stacks(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """A [K, r, ...] and scaled B [K, O, r] of the current runs, and b, for input rows x."""
        route = self.shared.route
        if route is None or x.shape[0] != route.rows:
            raise RuntimeError(
                f"GroupedLoRA: got a batch of {x.shape[0]} rows, expected "
                f"{route.rows if route else 'a call of route() first'}. Fix: route(index) with one "
                "adapter per row of the whole batch (with CFG: of the doubled batch)"
            )
        A, B = (self.A, self.B) if route.every else (self.A[route.runs], self.B[route.runs])
        B_KOr = B.flatten(2) * route.scale
        return A.to(x.dtype), B_KOr.to(x.dtype), route.rows // len(route.runs)


class GroupedLinear(_Grouped):
    """h = W0 x + s B A x for a linear layer; x is [B, ..., I]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, ..., O] with each row's adapter applied."""
        h = self.base(x)
        A_KrI, B_KOr, _ = self.stacks(x)
        runs = len(A_KrI)
        low = torch.bmm(x.reshape(runs, -1, x.shape[-1]), A_KrI.mT)
        return torch.baddbmm(h.reshape(runs, -1, h.shape[-1]), low, B_KOr.mT).view(h.shape)


class GroupedConv2d(_Grouped):
    """The same for a convolution: A convolves as the layer does, B is 1x1 (as in PEFT)."""

    base: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """[B, O, H', W'] with each row's adapter applied."""
        h = self.base(x)
        A, B_KOr, b = self.stacks(x)
        low_BrL = self._pointwise(x, A, b) if self._is_pointwise else self._folded(x, A, b)
        return torch.baddbmm(h.flatten(2), _per_row(B_KOr, b), low_BrL).view(h.shape)

    @property
    def _is_pointwise(self) -> bool:
        return self.base.kernel_size == (1, 1) and self.base.stride == (1, 1)

    def _pointwise(self, x: Tensor, A: Tensor, b: int) -> Tensor:
        return torch.bmm(_per_row(A.flatten(2), b), x.flatten(2))

    def _folded(self, x: Tensor, A: Tensor, b: int) -> Tensor:
        """Runs become channel groups of one grouped convolution (2-5x unfold + bmm on a CPU)."""
        runs, rank = A.shape[:2]
        x_bKIHW = x.view(runs, b, *x.shape[1:]).transpose(0, 1)
        low = F.conv2d(
            x_bKIHW.reshape(b, -1, *x.shape[2:]),
            A.flatten(0, 1),
            stride=self.base.stride,
            padding=self.base.padding,
            groups=runs,
        )
        return low.view(b, runs, rank, -1).transpose(0, 1).reshape(runs * b, rank, -1)


@dataclass(frozen=True)
class GroupedLoRA:
    """The adapters of a UNet into which `inject` put stacked layers."""

    layers: dict[str, _Grouped]
    """Module path in the UNet -> stacked layer."""
    adapters: int
    rank: int
    alpha: float
    _shared: _Shared = field(repr=False)
    prefix: str = "unet."
    """Of layers' names in files; "" where they name their part of the model themselves."""

    def parameters(self) -> list[nn.Parameter]:
        """Every stacked matrix, [P, ...] each, in a fixed order."""
        return [matrix for layer in self.layers.values() for matrix in (layer.A, layer.B)]

    def route(self, index: Tensor | Sequence[int]) -> None:
        """Say which adapter each batch row uses from now on.

        Parameters
        ----------
        index : [B] int, 0 <= index < adapters, or -1 for the plain base. With classifier-free
            guidance the batch is [unconditional, conditional]: pass the index of the doubled batch.
            Long runs of equal rows are faster; any order is right.
        """
        rows = [int(i) for i in (index.tolist() if isinstance(index, Tensor) else index)]
        if not rows or not -1 <= min(rows) <= max(rows) < self.adapters:
            raise ValueError(
                f"GroupedLoRA.route: got {rows[:8]}..., expected 0..{self.adapters - 1} or -1"
            )
        length = math.gcd(*(len(list(run)) for _, run in groupby(rows)))
        runs = torch.tensor(rows[::length])
        device = next(iter(self.layers.values())).A.device
        scale = self._shared.scaling * (runs >= 0).float()[:, None, None]
        self._shared.route = Route(
            rows=len(rows),
            runs=runs.clamp(min=0).to(device),
            scale=scale.to(device),
            every=runs.tolist() == list(range(self.adapters)),
        )

    @torch.no_grad()
    def reset(self, position: int, generator: torch.Generator) -> None:
        """PEFT's start: A uniform in +-1/sqrt(fan in), B zero."""
        for layer in self.layers.values():
            A = layer.A[position]
            start = torch.rand(A.shape, generator=generator) * 2 - 1
            A.copy_(start / math.sqrt(A[0].numel()))
            layer.B[position].zero_()

    def save(self, position: int, folder: str) -> None:
        """Write one adapter as `pytorch_lora_weights.safetensors` into a folder or URI, whole.

        `StableDiffusionPipeline.load_lora_weights(folder)` reads it.
        """
        weights = {}
        for name, layer in self.layers.items():
            for part, stack in (("lora_A", layer.A), ("lora_B", layer.B)):
                tensor = stack[position].detach().to("cpu", copy=True).contiguous()
                weights[f"{self.prefix}{name}.{part}.weight"] = tensor
        metadata = json.dumps(
            self._settings(),
            default=lambda v: list(v) if isinstance(v, set) else str(v),
            sort_keys=True,
        )
        data = safetensors.torch.save(
            weights, {"format": "pt", LORA_ADAPTER_METADATA_KEY: metadata}
        )
        make_folder(folder)
        write_atomic(f"{folder}/{LORA_WEIGHT_NAME_SAFE}", data)
        note_bytes(folder, LORA_WEIGHT_NAME_SAFE, data)

    def _settings(self) -> dict[str, Any]:
        """PEFT's configuration of each adapted part of the model, `<part>.<key>`."""
        adapted: dict[str, list[str]] = {}
        for name in sorted(self.layers):
            part, _, own = f"{self.prefix}{name}".partition(".")
            adapted.setdefault(part, []).append(own)
        return {
            f"{part}.{key}": value
            for part, names in adapted.items()
            for key, value in LoraConfig(
                r=self.rank, lora_alpha=_whole(self.alpha), target_modules=names
            )
            .to_dict()
            .items()
        }

    @torch.no_grad()
    def load(self, position: int, folder: str) -> None:
        """Read one adapter from a folder or URI into a position.

        Raises DamagedError: not whole or not finite; ModelError: other targets, rank or alpha.
        """
        weights = self._read(folder)
        names = [f"{self.prefix}{name}" for name in self.layers]
        expected = {f"{name}.{part}.weight" for name in names for part in ("lora_A", "lora_B")}
        if weights.keys() != expected:
            extra = sorted(weights.keys() ^ expected)[:3]
            raise ModelError(
                f"{folder}: adapts other layers than this UNet was prepared for, e.g. "
                f"{', '.join(extra)}. Fix: use the finetune.targets and finetune.text_encoder that "
                "it was trained with"
            )
        for name, layer in self.layers.items():
            for part, stack in (("lora_A", layer.A), ("lora_B", layer.B)):
                tensor = weights[f"{self.prefix}{name}.{part}.weight"]
                if tensor.shape != stack.shape[1:]:
                    raise ModelError(
                        f"{folder}: {name}.{part} has shape {tuple(tensor.shape)}, expected "
                        f"{tuple(stack.shape[1:])}. Fix: use the base model and finetune.rank that "
                        "it was trained with"
                    )
                stack[position].copy_(tensor)

    def _read(self, folder: str) -> dict[str, Tensor]:
        file = f"{folder}/{LORA_WEIGHT_NAME_SAFE}"
        storage, path = open_storage(file)
        try:
            data = storage.cat_file(path)
            weights = safetensors.torch.load(data)
        except (OSError, safetensors.SafetensorError) as error:
            reason = f"{masked(file)}: cannot be read ({masked(str(error))}); expected an adapter"
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise ModelError(f"{reason}. Fix: see to the storage, and run again") from None
            raise DamagedError(f"{reason}. Fix: {AGAIN}", file) from None
        check_finite(weights, file)
        alpha = alpha_of(data)
        if alpha is not None and alpha != self.alpha:
            raise ModelError(
                f"{folder}: trained with alpha {alpha}, expected {self.alpha}. Fix: "
                f"finetune.alpha={alpha}"
            )
        return weights


def inject(
    unet: nn.Module,
    targets: Mapping[str, Sequence[str]],
    rank: int,
    alpha: float,
    adapters: int,
    prefix: str = "unet.",
) -> GroupedLoRA:
    """Replace the targeted layers of a frozen UNet by stacked ones, all adapters at zero effect.

    Parameters
    ----------
    targets : kinds of layers, with the ends of their module names (`models.family.layers_of`).
    adapters : number of adapters P that are stacked.
    prefix : see `GroupedLoRA.prefix`.

    Raises
    ------
    ConfigError
        A target matches no layer of this UNet.
    """
    unet.requires_grad_(False)
    shared = _Shared(scaling=alpha / rank)
    found: dict[str, _Grouped] = {}
    for target, ends in targets.items():
        names = _matching(unet, ends)
        if not names:
            raise ConfigError(
                f"finetune.targets: {target!r} matches no layer of the {type(unet).__name__}; "
                f"expected kinds of layers that it has. Fix: remove {target!r}"
            )
        for name in names:
            found[name] = _grouped(unet.get_submodule(name), adapters, rank, shared)
    ordered = {name: found[name] for name in sorted(found)}
    for name, layer in ordered.items():
        unet.set_submodule(name, layer)
    return GroupedLoRA(ordered, adapters, rank, alpha, shared, prefix)


def restack(lora: GroupedLoRA, adapters: int) -> GroupedLoRA:
    """The same layers with another number of adapters, at zero effect; the old ones are gone."""
    for layer in lora.layers.values():
        for name in ("A", "B"):
            stack = getattr(layer, name)
            empty = torch.zeros([adapters, *stack.shape[1:]], device=stack.device)
            setattr(layer, name, nn.Parameter(empty))
    return replace(lora, adapters=adapters)


def _matching(unet: nn.Module, ends: Sequence[str]) -> list[str]:
    return [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and any(name == end or name.endswith(f".{end}") for end in ends)
    ]


def _grouped(module: nn.Module, adapters: int, rank: int, shared: _Shared) -> _Grouped:
    kind = GroupedConv2d if isinstance(module, nn.Conv2d) else GroupedLinear
    return kind(module, adapters, rank, shared)  # type: ignore[arg-type]


def _per_row(stack_K: Tensor, b: int) -> Tensor:
    """[K, ...] -> [K b, ...]: each run's matrix for each of its rows."""
    return stack_K[:, None].expand(-1, b, -1, -1).reshape(-1, *stack_K.shape[1:])


def alpha_of(data: bytes) -> float | None:
    """LoRA's alpha in the metadata of an adapter's file; None for files that do not say."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    config = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    return next((value for key, value in config.items() if key.endswith(".lora_alpha")), None)


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value
