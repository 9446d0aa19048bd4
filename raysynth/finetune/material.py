"""What never changes during a fine-tuning, computed once: latents, and conditions of prompts.

Shape suffixes: T micro-batches, b rows of an adapter's micro-batch, E encoded images
(an image and its mirror count as two), S prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from raysynth.errors import DataError
from raysynth.finetune.draws import Draws
from raysynth.finetune.jobs import Job
from raysynth.finetune.kept import Encoded, Kept
from raysynth.models.condition import Condition
from raysynth.models.family import Base
from raysynth.models.latents import as_pixels, images_at_once, moments
from raysynth.sides import Size, sides_of
from raysynth.storage.tables import decode_images, read_parts, split_files

ENCODE_BATCH = 64
"""Images, or captions, encoded at once, at most."""


@dataclass(frozen=True)
class Material:
    """What one adapter is trained on, ready for the device."""

    moments: Tensor
    """[E, 2, C, h, w] float16 mean and standard deviation of the scaled latents."""
    texts: Condition
    """S rows: what the prompts say; the last one is the empty prompt's."""
    entries: Tensor
    """[T, b] int64 encoded image of each draw."""
    spoken: Tensor
    """[T, b] int64 row of `texts` of each draw."""
    uniform: Tensor
    """[T, b] float32 in (0, 1)."""
    weights: Tensor
    """[b] float32, on the CPU: of each row in the adapter's loss."""
    also: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> [T, b] int64 row of `texts`: other prompts of each draw, see `objective`."""
    values: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> [T, b] float32: numbers of each draw, see `objective`."""
    images: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> [E, ...] float32: what else is known of the encoded images; 0: nothing is."""
    noted: Mapping[str, Any] = field(default_factory=dict)
    """Name -> what is told of it beside the loss curve, JSON-able."""


@dataclass(frozen=True)
class Drawn:
    """The images that a job's draws use, of which E are encoded."""

    ids: Sequence[str]
    """Of N images."""
    pixels: np.ndarray
    """[N, H, W, 3] uint8."""
    place: np.ndarray
    """[E] which of them."""
    flips: np.ndarray
    """[E] bool, whether mirrored."""


About = Callable[[Drawn], tuple[Mapping[str, Tensor], Mapping[str, Any]]]
"""What an objective asks of images: `Material.images`, and what it notes."""


def prepare(
    job: Job, draws: Draws, base: Base, real: str, kept: Kept, name: str, about: About | None = None
) -> Material:
    """Encode the images that the draws of a job use, and its prompts, or find them encoded.

    Parameters
    ----------
    base : with vae, text encoder and tokenizer.
    real : folder of the real table.
    kept, name : where the run keeps what is encoded, and what it is called there.
    about : what else is to be known of the images; None: nothing.
    """
    drawn = np.stack([draws.rows.ravel(), draws.flips.ravel().astype(np.int64)], 1)
    pairs, entries = np.unique(drawn, axis=0, return_inverse=True)
    positions, place = np.unique(pairs[:, 0], return_inverse=True)
    ids = [job.ids[p] for p in positions]
    flips = pairs[:, 1].astype(bool)
    said, state_of_row = job.spoken
    prompts = [*said, ""]
    read = cache(partial(read_images, real, tuple(ids), base.size))

    def encode() -> Encoded:
        return encode_images(base, read(), place, flips), heard(base, job, prompts)

    key = kept.key(ids, place, flips, prompts)
    moments, texts = kept.once(name, key, base.device, encode)
    images, noted = about(Drawn(ids, read(), place, flips)) if about else ({}, {})
    spoken = np.where(draws.dropped, len(said), state_of_row[draws.rows])
    return Material(
        moments=moments,
        texts=texts,
        entries=torch.from_numpy(entries.reshape(draws.rows.shape)).to(base.device),
        spoken=torch.from_numpy(spoken).to(base.device),
        uniform=torch.from_numpy(draws.uniform).to(base.device),
        weights=torch.full(draws.rows.shape[1:], 1 / draws.rows.shape[1]),
        images=images,
        noted=noted,
    )


def heard(base: Base, job: Job, prompts: Sequence[str]) -> Condition:
    """What prompts of a job say, a row each; captions a few at once, since they may be many."""
    if not job.cuts:
        return base.condition(prompts)
    cutting = replace(base, cuts=True)
    parts = range(0, len(prompts), ENCODE_BATCH)
    return Condition.cat([cutting.condition(prompts[n : n + ENCODE_BATCH]) for n in parts])


def read_images(real: str, ids: Sequence[str], size: Size) -> np.ndarray:
    """[N, H, W, 3] uint8 training images of the real table at a size, in the order of `ids`.

    Raises DataError when some are not in the table.
    """
    wanted, missing = pa.array(ids, pa.string()), np.ones(len(ids), bool)
    pixels = np.empty((len(ids), *sides_of(size), 3), np.uint8)
    for part in read_parts(real, ["id", "image"], split_files(real, "train"), wanted):
        place = pc.index_in(part["id"], value_set=wanted)
        rows = np.asarray(place)
        pixels[rows] = decode_images(part["image"], size)
        missing[rows] = False
    if missing.any():
        raise DataError(
            f"{real}: {missing.sum()} of {len(ids)} training images are missing, e.g. "
            f"{ids[int(missing.argmax())]}; expected every clustered image in the real table. Fix: "
            "run ingest and clustering again"
        )
    return pixels


@torch.no_grad()
def encode_images(base: Base, pixels: np.ndarray, place: np.ndarray, flips: np.ndarray) -> Tensor:
    """[E, 2, C, h, w] float16 mean and spread of the scaled latents.

    Parameters
    ----------
    pixels : [N, H, W, 3] uint8.
    place : [E] int, which of the images; flips : [E] bool, whether mirrored.
    """
    height, width = pixels.shape[1:3]
    encoded, count = [], images_at_once((height, width), ENCODE_BATCH)
    for start in range(0, len(place), count):
        rows = slice(start, start + count)
        x = as_pixels(base, pixels[place[rows]])
        mirrored = torch.from_numpy(flips[rows]).to(base.device)[:, None, None, None]
        found = moments(base, torch.where(mirrored, x.flip(3), x))
        encoded.append(torch.stack(found, 1).half())
    return torch.cat(encoded)
