"""Previews: some images of an adapter in training, beside each other in one picture.

They lie in `<fine-tuning>/<adapter>/previews/<step>.png`, squares of the base's own side from left
to right, drawn of the same noise at every step: what changes is the adapter. Nothing of the
training is touched: its random numbers are a function of adapter and step, those of previews others
(`draws.prior_dice`), and a training with previews ends in the same bits (tests/finetune).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raysynth.errors import StorageError
from raysynth.finetune.draws import prior_dice
from raysynth.finetune.learner import Learner
from raysynth.models.condition import Condition
from raysynth.models.family import Base
from raysynth.models.latents import decode
from raysynth.models.prediction import Predicted
from raysynth.storage.files import make_folder, open_storage, sizes_below, write_atomic
from raysynth.storage.tables import encode_png

FOLDER = "previews"
IMAGES, STEPS, GUIDANCE = 4, 8, 3.0
Denoise = Callable[[Tensor, Tensor, Condition], Predicted]


def drawn(learner: Learner, base: Base, denoise: Denoise, seed: int) -> NDArray[np.uint8]:
    """[side, IMAGES side, 3] images of an adapter as it is now, of its groups in turn.

    Deterministic DDIM (Song et al. 2021, eq. 12 with sigma = 0) over STEPS levels with
    classifier-free guidance; `denoise`: the adapter's network.
    """
    spoken = sorted(learner.job.prompts.items())
    asked = [spoken[number % len(spoken)] for number in range(IMAGES)]
    told = base.condition([*[""] * IMAGES, *(prompt for _, prompt in asked)])
    dice = [prior_dice(group, number, seed) for number, (group, _) in enumerate(asked)]
    shape = learner.material.moments.shape[2:]
    x = torch.stack([torch.randn(shape, generator=own) for own in dice]).to(base.device)
    shares = torch.linspace(1, 0, STEPS + 1, device=base.device)[:-1] * 0.999
    times = base.prediction.at(shares)
    for number, time in enumerate(times):
        said = denoise(torch.cat([x, x]), time.expand(2 * IMAGES), told)
        plain, asked_for = said.clean.chunk(2)
        clean = plain + GUIDANCE * (asked_for - plain)
        if number + 1 == len(times):
            x = clean
            break
        signal, spread = base.prediction.levels(time.expand(IMAGES))
        noise = (x - signal * clean) / spread
        signal, spread = base.prediction.levels(times[number + 1].expand(IMAGES))
        x = signal * clean + spread * noise
    return np.concatenate(list(decode(base, x)), 1)


def keep(folder: str, step: int, picture: NDArray[np.uint8]) -> None:
    """Write an adapter's preview; a storage that is away costs the picture and nothing else."""
    with contextlib.suppress(StorageError):
        make_folder(f"{folder}/{FOLDER}")
        write_atomic(path_of(folder, step), encode_png(picture), patience=0)


def path_of(folder: str, step: int) -> str:
    """Where the preview of a step lies below an adapter's folder."""
    return f"{folder}/{FOLDER}/{step:06d}.png"


def read(folder: str, step: int) -> NDArray[np.uint8] | None:
    """[side, IMAGES side, 3] a preview; None: there is none."""
    storage, path = open_storage(path_of(folder, step))
    with contextlib.suppress(OSError, StorageError):
        return np.asarray(Image.open(io.BytesIO(storage.cat_file(path))).convert("RGB"))
    return None


def previews_of(finetune: str, adapters: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """Adapter -> (step, path or URI) of its previews in order; only those that have some.

    `finetune`: folder or URI of the stage.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for name in sorted(sizes_below(finetune)):
        adapter, _, rest = name.partition("/")
        if adapter in adapters and rest.startswith(f"{FOLDER}/") and rest.endswith(".png"):
            step = int(rest.removeprefix(f"{FOLDER}/").removesuffix(".png"))
            found.setdefault(adapter, []).append((step, f"{finetune}/{name}"))
    return found
