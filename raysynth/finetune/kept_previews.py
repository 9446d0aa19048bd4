"""Previews on the storage: written by workers, read by whoever shows them; without torch.

They lie in `<fine-tuning>/<adapter>/previews/<step>.png`: images of the size that most steps are
trained at, from left to right.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raysynth.errors import StorageError
from raysynth.storage.files import make_folder, open_storage, sizes_below, write_atomic
from raysynth.storage.tables import encode_png

FOLDER = "previews"
IMAGES = 4
"""In a preview."""


def keep(folder: str, step: int, picture: NDArray[np.uint8]) -> None:
    """Write an adapter's preview; a storage that is away costs the picture and nothing else."""
    with contextlib.suppress(StorageError):
        make_folder(f"{folder}/{FOLDER}")
        write_atomic(path_of(folder, step), encode_png(picture), patience=0)


def path_of(folder: str, step: int) -> str:
    """Where the preview of a step lies below an adapter's folder."""
    return f"{folder}/{FOLDER}/{step:06d}.png"


def read(folder: str, step: int) -> NDArray[np.uint8] | None:
    """[height, IMAGES width, 3] a preview; None: there is none."""
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
