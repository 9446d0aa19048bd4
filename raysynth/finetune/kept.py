"""What a base's encoders say of a job's images and prompts, kept on disk while the job is trained.

A worker that goes on from a checkpoint, or another one in its place, encodes nothing again: with a
large base that is minutes. A file is believed only if it is of the same images, prompts and base,
whole and finite; else all is encoded again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from raysynth.knobs import digest_of
from raysynth.models.condition import Condition
from raysynth.models.headers import metadata_of
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.files import make_folder, open_storage, remove_files, write_atomic

FOLDER = ".encoded"
"""Below the stage's work."""
MOMENTS, TOLD, KEY = "moments", "told.", "key"
BASE = ("name", "revision", "weights", "dtype", "quantization")
"""Knobs of `base` that decide what its encoders say."""
Encoded = tuple[Tensor, Condition]
"""Moments of the images' latents, and what the prompts say."""


@dataclass(frozen=True)
class Kept:
    """Where encoded images and prompts of a stage are kept, and by which base."""

    work: str
    """The stage's folder or URI."""
    base: BaseConfigSection
    live: bool
    """Whether prompts are kept as tokens."""

    def key(
        self, ids: Sequence[str], place: np.ndarray, flips: np.ndarray, prompts: Sequence[str]
    ) -> str:
        """A digest of all that decides what is encoded."""
        base = self.base.model_dump(mode="json", include=set(BASE))
        pairs = zip(place.tolist(), flips.tolist(), strict=True)
        images = [[ids[p], int(flip)] for p, flip in pairs]
        told = {"images": images, "prompts": list(prompts)}
        return digest_of({"base": base, "live": self.live, **told})

    def once(
        self, name: str, key: str, device: torch.device, encode: Callable[[], Encoded]
    ) -> Encoded:
        """What `encode` gives, or what it gave before, on a device; `name`: of the file."""
        path = f"{self.work}/{FOLDER}/{name}.safetensors"
        with contextlib.suppress(OSError, SafetensorError, KeyError, TypeError, ValueError):
            return _read(path, key, device)
        found = encode()
        tensors = {f"{TOLD}{part}": tensor for part, tensor in found[1].tensors.items()}
        all_of = {MOMENTS: found[0], **tensors}
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in all_of.items()}
        make_folder(path.rsplit("/", 1)[0])
        write_atomic(path, safetensors.torch.save(kept, {KEY: key}))
        return found

    def forget(self, names: Sequence[str]) -> None:
        """Remove the files of a job that is done."""
        remove_files(f"{self.work}/{FOLDER}", [f"{name}.safetensors" for name in names])


def _read(path: str, key: str, device: torch.device) -> Encoded:
    storage, name = open_storage(path)
    data = storage.cat_file(name)
    tensors = safetensors.torch.load(data)
    if metadata_of(data)[KEY] != key or not all(
        tensor.isfinite().all() for tensor in tensors.values()
    ):
        raise ValueError("of other images, or damaged")
    told = {n.removeprefix(TOLD): t.to(device) for n, t in tensors.items() if n.startswith(TOLD)}
    return tensors[MOMENTS].to(device), Condition(told)
