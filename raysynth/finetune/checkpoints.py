"""Checkpoints of single adapters: atomic, safetensors only, readable by any later pack."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass

import fsspec
import safetensors
import safetensors.torch
from torch import Tensor

FILE = "checkpoint.safetensors"
NUMBERS = {"step": int, "best_loss": float, "best_step": int}


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to go on; the step is the state of the random numbers (see draws)."""

    step: int
    weights: Tensor
    """[n]."""
    exp_avg: Tensor
    """[n] AdamW's first moment."""
    exp_avg_sq: Tensor
    """[n] AdamW's second moment."""
    average: Tensor
    """[n] moving average of the weights; empty when off."""
    losses: Tensor
    """[step] training loss of each step so far."""
    best: Tensor
    """[n] weights of the least held-out loss; empty when early stopping is off."""
    best_loss: float
    best_step: int


def write_checkpoint(checkpoint: Checkpoint, folder: str) -> None:
    """Write `checkpoint.safetensors` into an adapter's folder or URI, whole."""
    tensors = {
        name: getattr(checkpoint, name).detach().cpu().contiguous()
        for name in ("weights", "exp_avg", "exp_avg_sq", "average", "losses", "best")
    }
    filesystem, path = fsspec.core.url_to_fs(folder)
    filesystem.makedirs(path, exist_ok=True)
    metadata = {name: str(getattr(checkpoint, name)) for name in NUMBERS}
    if "file" in filesystem.protocol:
        temporary = f"{path}/.{FILE}.{os.getpid()}"
        safetensors.torch.save_file(tensors, temporary, metadata)
        os.replace(temporary, f"{path}/{FILE}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        safetensors.torch.save_file(tensors, f"{scratch}/{FILE}", metadata)
        filesystem.put_file(f"{scratch}/{FILE}", f"{path}/{FILE}")


def read_checkpoint(folder: str) -> Checkpoint | None:
    """The last checkpoint of an adapter; None when there is none."""
    filesystem, path = fsspec.core.url_to_fs(f"{folder}/{FILE}")
    if not filesystem.exists(path):
        return None
    if "file" in filesystem.protocol:
        return _open(path)
    with tempfile.TemporaryDirectory() as scratch:
        filesystem.get_file(path, f"{scratch}/{FILE}")
        return _open(f"{scratch}/{FILE}")


def drop_checkpoint(folder: str) -> None:
    """Remove the checkpoint of a finished adapter."""
    filesystem, path = fsspec.core.url_to_fs(f"{folder}/{FILE}")
    if filesystem.exists(path):
        filesystem.rm(path)


def _open(path: str) -> Checkpoint:
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        numbers = {name: kind(file.metadata()[name]) for name, kind in NUMBERS.items()}
        return Checkpoint(**numbers, **tensors)
