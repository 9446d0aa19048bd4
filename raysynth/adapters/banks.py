"""Fine-tuned weights inside one generating actor: loaded once, switched per batch row or per batch.

A bank answers two questions: which rows of a batch can be denoised together, and how the UNet is
made to use their adapters. LoRA adapters all live in one grouped UNet and mix freely, but many rows
of one adapter are cheaper alone, folded into the weights; full UNet weights are exchanged, so a
batch is split by adapter.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from raysynth.adapters.damaged import AGAIN, check_finite
from raysynth.adapters.files import read_updates
from raysynth.adapters.fold import FoldedUNet
from raysynth.adapters.foreign import read_file
from raysynth.adapters.fused import is_fused, weights_of
from raysynth.adapters.grouped_lora import GroupedLoRA, inject, stack
from raysynth.adapters.layers import NONE, Form
from raysynth.adapters.record import LoraShape
from raysynth.errors import DamagedError, ModelError, first_line
from raysynth.generators.recipe import Training
from raysynth.models.base import Files
from raysynth.models.family import Base, layers_of
from raysynth.models.headers import is_whole
from raysynth.storage.files import Storage, open_storage
from raysynth.terminal import masked

# Rows of an adapter within a mixed batch are filled up to a multiple of this: the grouped layers
# are fast on long equal runs, and two clusters seldom meet at a round number.
RUN = 4
# As many rows of one adapter as this are denoised apart from the others, the adapter folded into
# the weights: what smaller batches lose is less than what the grouped layers cost.
FOLD_ROWS = 8
CACHED_UNETS = 2


class Bank(Protocol):
    """The adapters of a run, as one actor holds them."""

    def parts(self, adapters: Sequence[str]) -> list[np.ndarray]:
        """Row numbers that are denoised together; a row may repeat, to fill a run."""

    def use(self, adapters: Sequence[str], copies: int) -> Any:
        """The UNet, using these rows' adapters, for a batch of the rows `copies` times."""


class PlainBank:
    """No adapters: the base model by itself (`vanilla`)."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet

    def parts(self, adapters: Sequence[str]) -> list[np.ndarray]:
        """All rows at once."""
        return [np.arange(len(adapters))]

    def use(self, adapters: Sequence[str], copies: int) -> nn.Module:
        """The base's own, with nothing to switch."""
        return self.unet


class LoraBank:
    """All LoRA adapters on one network: stacked and routed by row, or one folded into weights.

    Of a quantised base none is folded.
    """

    def __init__(self, network: nn.Module, lora: GroupedLoRA, names: Sequence[str]) -> None:
        """`lora`: the adapters of these names, which do not change any more, on the network."""
        self.unet, self.lora = network, lora
        self.position = {name: number for number, name in enumerate(names)}
        lora.settle()
        # A twin with whole weights is what the base is quantised to do without.
        self.folded = None if lora.quantised else FoldedUNet(network, lora)

    @classmethod
    def of_run(cls, base: Base, folder: str, names: Sequence[str], shape: LoraShape) -> LoraBank:
        """The adapters `<folder>/<name>` of a run; raises as `GroupedLoRA.load`."""
        if shape.started:  # all of them have the layers and ranks of the first
            forms = {n: u.form for n, u in read_updates(f"{folder}/{names[0]}").items()}
            own = {n.removeprefix(base.prefix): form for n, form in forms.items()}
            lora = stack(base.network, own, len(names), base.prefix)
        else:
            targets = layers_of(base.family, shape.targets)
            targets |= base.family.text_targets if base.live else {}
            stacked = (targets, shape.rank, shape.alpha, len(names), base.prefix)
            lora = inject(base.network, *stacked, dora=shape.dora)
        for number, name in enumerate(names):
            lora.load(number, f"{folder}/{name}")
        return cls(base.network, lora, names)

    @classmethod
    def of_files(cls, base: Base, files: Mapping[str, str]) -> LoraBank:
        """Adapters of any known form and rank, by name; see `foreign.read_file`.

        `base`: `live` where one of them is on its text encoder too.

        Raises ModelError: a file is no adapter, or adapts what this base has not.
        """
        part = base.family.roles["model"][0]
        read = {name: read_file(file, part, base.parts) for name, file in files.items()}
        forms: dict[str, Form] = {}
        for updates in read.values():
            for name, update in updates.items():
                known = forms.get(name.removeprefix(base.prefix), NONE)
                forms[name.removeprefix(base.prefix)] = Form(
                    max(known.rank, update.form.rank), 1.0, dora=known.dora or update.form.dora
                )
        lora = stack(base.network, forms, len(read), base.prefix)
        for number, (name, updates) in enumerate(read.items()):
            lora.clear(number)
            try:
                lora.put(number, updates)
            except ModelError as error:
                raise ModelError(
                    f"{masked(files[name])}: {error}. Fix: an adapter of this base's architecture"
                ) from None
        return cls(base.network, lora, list(read))

    def parts(self, adapters: Sequence[str]) -> list[np.ndarray]:
        """The rows of every adapter that has `FOLD_ROWS`, separately, and all others together.

        Those of one adapter lie side by side, filled up to whole runs where adapters are mixed.
        """
        if any(is_fused(name) for name in adapters):  # every row has a mixture of its own
            return [np.arange(len(adapters))]
        index = np.array([self.position[name] for name in adapters])
        rows = [np.flatnonzero(index == position) for position in np.unique(index)]
        alone = [r for r in rows if len(r) >= FOLD_ROWS]
        rest = [r for r in rows if len(r) < FOLD_ROWS]
        if len(rest) > 1:
            rest = [np.concatenate([np.append(r, np.repeat(r[-1], -len(r) % RUN)) for r in rest])]
        return alone + rest

    def use(self, adapters: Sequence[str], copies: int) -> nn.Module:
        """Folded for rows of one adapter, if at all; else every row is routed to its own.

        With guidance the negative half needs the adapter too.
        """
        if any(is_fused(name) for name in adapters):
            self._fuse(adapters, copies)
            return self.unet
        index = [self.position[name] for name in adapters]
        if len(set(index)) == 1 and self.folded is not None:
            return self.folded.use(index[0])
        self.lora.route(index * copies)
        return self.unet

    def _fuse(self, adapters: Sequence[str], copies: int) -> None:
        """Route each row to its mixture; one of fewer adapters is filled up with weights of 0."""
        rows = [
            {self.position[name]: weight for name, weight in weights_of(each).items()}
            for each in adapters
        ]
        most = max(map(len, rows))
        for row in rows:
            spare = (number for number in range(self.lora.adapters) if number not in row)
            row |= dict.fromkeys(islice(spare, most - len(row)), 0.0)
        self.lora.fuse(rows * copies)


class FullBank:
    """Full UNet weights per adapter, exchanged inside one UNet; the last used stay in memory."""

    def __init__(self, base: Base, folder: str) -> None:
        """Adapters lie in `<folder>/<name>/unet`, as diffusers' save_pretrained writes them."""
        self.base, self.unet, self.folder, self.current = base, base.model, folder, ""
        # Matrices may be kept rounded (round_weights), normalisations never are.
        rounded = nn.Linear | nn.Conv2d
        kept = (m for m in self.unet.modules() if not isinstance(m, rounded))
        self.dtype = next(p.dtype for m in kept for p in m.parameters(recurse=False))
        self._cache: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def parts(self, adapters: Sequence[str]) -> list[np.ndarray]:
        """The rows of each adapter, separately."""
        names = np.array(adapters)
        return [np.flatnonzero(names == name) for name in dict.fromkeys(adapters)]

    def use(self, adapters: Sequence[str], copies: int) -> nn.Module:
        """The UNet with the weights of the rows' one adapter."""
        name = adapters[0]
        if name != self.current:
            self.unet.load_state_dict(self._weights(name))
            self.current = name
        return self.unet

    def _weights(self, name: str) -> dict[str, Tensor]:
        if name not in self._cache:
            self._cache[name] = read_network(self.base, f"{self.folder}/{name}", self.dtype)
            if len(self._cache) > CACHED_UNETS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(name)
        return self._cache[name]


def open_bank(
    base: Base,
    folder: str,
    names: Sequence[str],
    training: Training | None,
    shape: LoraShape,
) -> Bank:
    """The bank for the engine of the generator's models.

    Parameters
    ----------
    folder : the fine-tuning stage's folder or URI.
    names : adapters that the specs ask for.
    base : `live` where the adapters are on its text encoder too (`of_text`).
    training : the recipe's.
    shape : of its adapters, where they are LoRA's.
    """
    if training is None or not names:
        return PlainBank(base.model)
    if training.engine == "full":
        return FullBank(base, folder)
    if shape.each:
        return LoraBank.of_files(base, {name: f"{folder}/{name}" for name in names})
    return LoraBank.of_run(base, folder, names, shape)


def of_text(names: Sequence[str], training: Training | None, shape: LoraShape) -> bool:
    """Whether the bank of these adapters (see `open_bank`) is asked with tokens."""
    return bool(names) and training is not None and training.engine == "lora" and shape.text


def read_network(base: Base, folder: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of a fully fine-tuned network, saved under its part's name.

    Raises
    ------
    DamagedError
        A file of weights is missing, cut off, or holds what is no number.
    ModelError
        They cannot be loaded for another reason.
    """
    part = base.family.roles["model"][0]
    whole = f"{folder}/{part}"
    storage, path = open_storage(whole)
    try:
        weights = _loaded(base, storage, path, dtype)
    except (OSError, ValueError, RuntimeError) as error:
        files = [name for name in storage.find(path) if name.endswith(".safetensors")]
        cut = not files or not all(is_whole(storage, name) for name in files)
        reason = f"{masked(whole)} cannot be loaded ({first_line(error)}); expected UNet weights"
        if cut:  # not where memory has run out: the weights are good
            raise DamagedError(f"{reason}. Fix: {AGAIN}", whole) from error
        raise ModelError(f"{reason}. Fix: more memory, or delete it, and run again") from error
    check_finite(weights, whole)
    return weights


def _loaded(base: Base, storage: Storage, path: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of a part's folder, of an object store by way of the disk."""
    if storage.is_disk:
        return _read_local(base, os.path.dirname(path), dtype)
    with tempfile.TemporaryDirectory() as local:
        place = os.path.join(local, path.rstrip("/").rsplit("/", 1)[1])
        os.mkdir(place)
        for file in storage.find(path):  # `get` would take the name as a pattern
            storage.get_file(file, os.path.join(place, file.rsplit("/", 1)[1]))
        return _read_local(base, local, dtype)


def _read_local(base: Base, folder: str, dtype: torch.dtype) -> dict[str, Tensor]:
    files = Files(folder, {}, dtype, plain=False, key="fine-tuned")
    weights: dict[str, Tensor] = base.family.load(base.family.roles["model"][0], files).state_dict()
    return weights
