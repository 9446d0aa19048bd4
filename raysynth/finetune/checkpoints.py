"""Checkpoints of single adapters: atomic, safetensors only, readable by any later pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from raysynth.adapters.record import CHECKPOINT
from raysynth.errors import DamagedError, first_line
from raysynth.models.headers import header_of
from raysynth.storage.files import make_folder, open_storage, remove, write_atomic
from raysynth.terminal import masked

OPTIMIZER = "optimizer."
"""Before the names of its tensors in the file."""
NUMBERS = {"step": int, "best_loss": float, "best_step": int}


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to go on; the step is the state of the random numbers (see draws)."""

    step: int
    weights: Tensor
    """[n]."""
    optimizer: Mapping[str, Tensor]
    """What the optimizer goes on by (`optimizer.Steps.state`)."""
    average: Tensor
    """[n] moving average of the weights; empty when off."""
    losses: Tensor
    """[step] training loss of each step so far."""
    best: Tensor
    """[n] weights of the least held-out loss; empty when early stopping is off."""
    best_loss: float
    best_step: int
    terms: Tensor = field(default_factory=lambda: torch.empty(0))
    """[step, n] what each term of the loss came to; empty where there are none."""


def write_checkpoint(checkpoint: Checkpoint, folder: str) -> None:
    """Write `checkpoint.safetensors` into an adapter's folder or URI, whole."""
    tensors = {
        name: getattr(checkpoint, name).detach().cpu().contiguous()
        for name in ("weights", "average", "losses", "best")
    }
    for name, tensor in checkpoint.optimizer.items():
        tensors[OPTIMIZER + name] = tensor.detach().cpu().contiguous()
    if checkpoint.terms.numel():
        tensors["terms"] = checkpoint.terms.contiguous()
    metadata = {name: str(getattr(checkpoint, name)) for name in NUMBERS}
    make_folder(folder)
    write_atomic(f"{folder}/{CHECKPOINT}", safetensors.torch.save(tensors, metadata))


def read_checkpoint(folder: str) -> Checkpoint | None:
    """The last checkpoint of an adapter; None when there is none.

    Raises
    ------
    DamagedError
        It is cut off, or not what `write_checkpoint` wrote.
    """
    file = f"{folder}/{CHECKPOINT}"
    storage, path = open_storage(file)
    try:
        data = storage.cat_file(path)
        header, _ = header_of(data)
        numbers = {name: kind(header["__metadata__"][name]) for name, kind in NUMBERS.items()}
        found = safetensors.torch.load(data)
        own = [name for name in found if name.startswith(OPTIMIZER)]
        optimizer = {name.removeprefix(OPTIMIZER): found.pop(name) for name in own}
        return Checkpoint(**numbers, **found, optimizer=optimizer)
    except FileNotFoundError:
        return None
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{masked(file)}: cannot be read ({first_line(error)})", file) from None


def check_checkpoint(
    checkpoint: Checkpoint, folder: str, size: int, averaged: bool, states: Sequence[str]
) -> None:
    """Refuse what a training of [size] weights cannot go on from; raises DamagedError.

    Parameters
    ----------
    averaged : whether it keeps a moving average.
    states : what its optimizer has a number per weight of.
    """
    full = {"weights": size, "average": size * averaged}
    lengths = {"losses": {checkpoint.step}, "best": {0, size}, "terms": {0, checkpoint.step}}
    lengths |= {name: {length} for name, length in full.items()}
    own = {f"state.{name}": {size} for name in states}
    tensors = {name: getattr(checkpoint, name) for name in lengths} | dict(checkpoint.optimizer)
    for name in {**tensors, **own}:
        expected, tensor, found = (lengths | own).get(name), tensors.get(name), ""
        if tensor is None:
            found = f"{name} is missing"
        elif expected is not None and tensor.numel() not in expected:
            found = f"{name} has {tensor.numel()} numbers, expected {max(expected)}"
        elif not tensor.isfinite().all():
            found = f"{name} is not finite"
        if found:
            raise DamagedError(f"{masked(folder)}/{CHECKPOINT}: {found}", f"{folder}/{CHECKPOINT}")


def drop_checkpoint(folder: str) -> None:
    """Remove the checkpoint of a finished adapter."""
    remove(f"{folder}/{CHECKPOINT}")
