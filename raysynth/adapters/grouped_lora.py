"""Many adapters on one frozen network: stacked matrices, routed per batch row.

The layers are those of `layers`, which has the formulas: LoRA, rsLoRA and DoRA of any rank beside
one another. Files are PEFT's, as diffusers writes and reads them (`files`).

Shape suffixes: P adapters, K runs of b equal rows (B = K b), L layers, I in, O out, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from raysynth.adapters.files import Update, Updates, read_updates, write_updates
from raysynth.adapters.layers import NONE, Form, Grouped, Route, Shared, grouped
from raysynth.adapters.layers import GroupedConv2d as GroupedConv2d
from raysynth.adapters.layers import GroupedLinear as GroupedLinear
from raysynth.errors import ConfigError, ModelError
from raysynth.models.quantised import QuantisedLinear


@dataclass(frozen=True)
class GroupedLoRA:
    """The adapters of a network into which `inject` or `stack` put stacked layers."""

    layers: dict[str, Grouped]
    """Module path in the network -> stacked layer."""
    adapters: int
    usual: Mapping[str, Form]
    """How each layer is adapted where nothing else is said; its rank is the most that there is."""
    _shared: Shared = field(repr=False)
    prefix: str = "unet."
    """Of layers' names in files; "" where they name their part of the model themselves."""

    @property
    def quantised(self) -> bool:
        """Whether some of the frozen layers are."""
        return any(isinstance(layer.base, QuantisedLinear) for layer in self.layers.values())

    def parameters(self) -> list[nn.Parameter]:
        """Every stack, [P, ...] each, in a fixed order."""
        stacks = [(layer.A, layer.B, layer.M) for layer in self.layers.values()]
        return [stack for each in stacks for stack in each if stack is not None]

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
        scales_LP, dora_LP = self._forms()
        there_K, runs_K = runs >= 0, runs.clamp(min=0)
        dora_LK = dora_LP[:, runs_K] & there_K
        self._shared.route = Route(
            rows=len(rows),
            runs=runs_K.to(device),
            scale=(scales_LP[:, runs_K] * there_K)[:, :, None, None].to(device),
            dora=dora_LK[:, :, None].to(device) if dora_LK.any() else None,
            every=runs.tolist() == list(range(self.adapters)),
        )

    def fuse(self, rows: Sequence[Mapping[int, float]]) -> None:
        """Say which adapters each batch row uses the weighted sum of: W0 + sum of w s B A.

        Parameters
        ----------
        rows : [B] adapter -> its weight, as many of every row.

        Raises ValueError: an adapter that there is not, or whose rows have lengths of their own.
        """
        index = torch.tensor([list(row) for row in rows])
        scales_LP, dora_LP = self._forms()
        if not 0 <= int(index.min()) <= int(index.max()) < self.adapters or dora_LP.any():
            raise ValueError(
                f"GroupedLoRA.fuse: got adapters {sorted(set(index.flatten().tolist()))[:8]}, "
                f"expected 0..{self.adapters - 1}, without DoRA"
            )
        device = next(iter(self.layers.values())).A.device
        weights = torch.tensor([list(row.values()) for row in rows])
        scale = scales_LP[:, index] * weights
        self._shared.route = Route(
            rows=len(rows),
            runs=index.to(device),
            scale=scale[..., None, None].to(device),
            dora=None,
            every=False,
        )

    def _forms(self) -> tuple[Tensor, Tensor]:
        """[L, P] scales, and whether rows have lengths of their own; on the host."""
        shared, layers = self._shared, self.layers.values()
        if shared.scales is None or shared.dora is None:
            shared.scales = torch.tensor([[form.scale for form in x.forms] for x in layers])
            shared.dora = torch.tensor([[form.dora for form in x.forms] for x in layers])
        return shared.scales, shared.dora

    def _reform(self, layer: Grouped, position: int, form: Form) -> None:
        layer.forms[position] = form
        layer.norms = self._shared.scales = None

    @torch.no_grad()
    def reset(
        self,
        position: int,
        generator: torch.Generator,
        rank: int | None = None,
        alpha: float | None = None,
    ) -> None:
        """PEFT's start: A uniform in +-1/sqrt(fan in), B zero, rows as long as the base's.

        `rank`, `alpha`: of this adapter, and no more than there is room for; None: as the others'.
        """
        for name, layer in self.layers.items():
            form = self.usual[name]
            own = replace(form, rank=min(rank or form.rank, form.rank), alpha=alpha or form.alpha)
            self._reform(layer, position, own)
            A = layer.A[position]
            start = torch.rand([own.rank, *A.shape[1:]], generator=generator) * 2 - 1
            A[: own.rank] = (start / math.sqrt(A[0].numel())).to(A)
            A[own.rank :] = 0
            layer.B[position].zero_()
            if layer.M is not None:
                layer.M[position] = layer.lengths_of(position)

    @torch.no_grad()
    def put(self, position: int, updates: Updates) -> None:
        """Take over the updates of some layers, by their names in files; others stay as they are.

        An update without lengths of rows gets those that it makes, where the layer has any.

        Raises ModelError: a layer that is not adapted, another shape, a rank above the most.
        """
        for name, update in updates.items():
            layer = self.layers.get(name.removeprefix(self.prefix))
            shapes = "" if layer is None else _misfit(layer, update)
            if layer is None or shapes:
                raise ModelError(f"{name}: {shapes or 'is not adapted'}")
            rank = update.form.rank
            self._reform(layer, position, replace(update.form, dora=layer.M is not None))
            layer.A[position].zero_()[:rank] = update.A.to(layer.A)
            layer.B[position].zero_()[:, :rank] = update.B.to(layer.B)
            if layer.M is not None:
                own = layer.lengths_of(position) if update.M is None else update.M
                layer.M[position] = own.to(layer.M)

    @torch.no_grad()
    def clear(self, position: int) -> None:
        """Adapt no layer, until `put` says which."""
        for layer in self.layers.values():
            self._reform(layer, position, NONE)
            layer.A[position].zero_()
            layer.B[position].zero_()

    def settle(self) -> None:
        """Nothing changes any more until `put` or `reset`: what follows from weights is kept."""
        for layer in self.layers.values():
            if layer.M is not None:
                layer.norms = torch.stack([layer.lengths_of(p) for p in range(self.adapters)])

    def updates(self, position: int) -> dict[str, Update]:
        """One adapter's own updates, copied to the host, by the layers' names in files."""
        found = {}
        for name, layer in self.layers.items():
            form = layer.forms[position]
            A, B = layer.A[position, : form.rank], layer.B[position, :, : form.rank]
            M = layer.M[position] if layer.M is not None and form.dora else None
            own = [None if x is None else x.detach().to("cpu", copy=True) for x in (A, B, M)]
            if form.rank:
                found[f"{self.prefix}{name}"] = Update(form, *own)  # type: ignore[arg-type]
        return found

    def save(self, position: int, folder: str) -> None:
        """Write one adapter into a folder or URI, see `files.write_updates`."""
        write_updates(self.updates(position), folder)

    def load(self, position: int, folder: str) -> None:
        """Read one adapter from a folder or URI into a position.

        Rank and alpha are the file's. Raises DamagedError: not whole or not finite; ModelError:
        other targets, a rank above the most that the stacks were made for, other lengths of rows.
        """
        alphas = {form.alpha for form in self.usual.values()}
        updates = read_updates(folder, alphas.pop() if len(alphas) == 1 else None)
        names = {f"{self.prefix}{name}" for name in self.layers}
        if updates.keys() != names:
            extra = sorted(updates.keys() ^ names)[:3]
            raise ModelError(
                f"{folder}: adapts other layers than this network was prepared for, e.g. "
                f"{', '.join(extra)}. Fix: use the finetune.targets and finetune.text_encoder that "
                "it was trained with"
            )
        for name, update in updates.items():
            own = self.layers[name.removeprefix(self.prefix)]
            if (own.M is None) != (update.M is None):
                raise ModelError(
                    f"{folder}: {name} has {'no ' * (update.M is None)}lengths of its rows. Fix: "
                    "use the finetune.dora that it was trained with"
                )
        try:
            self.put(position, updates)
        except ModelError as error:
            raise ModelError(
                f"{folder}: {error}. Fix: use the base model and finetune.rank that it was "
                "trained with"
            ) from None


def _misfit(layer: Grouped, update: Update) -> str:
    """What is wrong with the shapes of an update of a layer; "" where it fits."""
    rank, most = update.form.rank, layer.A.shape[1]
    expected = {
        "lora_A": (update.A, [rank, *layer.A.shape[2:]]),
        "lora_B": (update.B, [layer.B.shape[1], rank, *layer.B.shape[3:]]),
    }
    for name, (tensor, shape) in expected.items():
        if list(tensor.shape) != shape:
            return f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}"
    if update.M is not None and len(update.M) != layer.B.shape[1]:
        return f"{len(update.M)} lengths of rows, expected {layer.B.shape[1]}"
    return f"has rank {rank}, expected at most {most}" if rank > most else ""


def inject(
    network: nn.Module,
    targets: Mapping[str, Sequence[str]],
    rank: int,
    alpha: float,
    adapters: int,
    prefix: str = "unet.",
    *,
    rslora: bool = False,
    dora: bool = False,
    also: Mapping[str, Form] | None = None,
) -> GroupedLoRA:
    """Replace the targeted layers of a frozen network by stacked ones, all at zero effect.

    Parameters
    ----------
    targets : kinds of layers, with the ends of their module names (`models.family.layers_of`).
    rank : of the stacks, the most that an adapter may have.
    adapters : number of adapters P that are stacked.
    prefix : see `GroupedLoRA.prefix`.
    also : layers that are adapted in a form of their own, by their names in files.

    Raises ConfigError: a target matches no layer of the network; ModelError: one of `also` is none.
    """
    forms: dict[str, Form] = {}
    for target, ends in targets.items():
        names = _matching(network, ends)
        if not names:
            raise ConfigError(
                f"finetune.targets: {target!r} matches no layer of the {type(network).__name__}; "
                f"expected kinds of layers that it has. Fix: remove {target!r}"
            )
        forms |= dict.fromkeys(names, Form(rank, alpha, rslora, dora))
    for name, form in (also or {}).items():
        forms[name.removeprefix(prefix)] = replace(form, dora=dora)
    return stack(network, forms, adapters, prefix)


def stack(
    network: nn.Module, forms: Mapping[str, Form], adapters: int, prefix: str = "unet."
) -> GroupedLoRA:
    """Replace layers of a frozen network, by their module paths, by stacked ones of such forms.

    Raises ModelError: there is no linear or convolutional layer of such a name.
    """
    network.requires_grad_(False)
    shared, layers = Shared(), {}
    for number, (name, form) in enumerate(sorted(forms.items())):
        module = layer_at(network, name)
        if module is None:
            raise ModelError(f"{prefix}{name}: no layer of the {type(network).__name__}")
        layers[name] = grouped(module, [form] * adapters, number, shared)
    for name, layer in layers.items():
        network.set_submodule(name, layer)
    usual = dict(sorted(forms.items()))
    return GroupedLoRA(layers, adapters, usual, shared, prefix)


def restack(lora: GroupedLoRA, adapters: int) -> GroupedLoRA:
    """The same layers with another number of adapters, at zero effect; the old ones are gone."""
    for name, layer in lora.layers.items():
        layer.restack([lora.usual[name]] * adapters)
    lora._shared.scales = None
    return replace(lora, adapters=adapters)


def layer_at(network: nn.Module, name: str) -> nn.Linear | nn.Conv2d | None:
    """The layer of a module path, which can be adapted; None where there is none."""
    try:
        module = network.get_submodule(name)
    except AttributeError:
        return None
    return module if isinstance(module, nn.Linear | nn.Conv2d) else None


def _matching(network: nn.Module, ends: Sequence[str]) -> list[str]:
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and any(name == end or name.endswith(f".{end}") for end in ends)
    ]
