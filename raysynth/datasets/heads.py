"""What the first bytes of pictures say: enough to refuse what is none before anything starts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from PIL import Image

from raysynth.datasets.files import clipped, open_folder
from raysynth.datasets.pictures import FORMATS, ORIENTATION
from raysynth.errors import DataError
from raysynth.sides import Sides
from raysynth.storage.files import Storage

HEAD = 1 << 16
"""Bytes of an image that say its format and size."""
LYING = 5
"""EXIF's orientations from this on turn an image by a quarter."""
READERS = 16
NAMED = 3
"""Images that cannot be read and are said by name."""


def read_heads(path: str, names: Sequence[str], advice: str = "") -> dict[str, Sides]:
    """Image -> height and width in pixels as it is seen; refuses files that are no image.

    First bytes alone are read; whole images by workers. Raises DataError that names them.

    Parameters
    ----------
    path : folder or URI that names are relative to.
    advice : what else can be done about them.
    """
    storage, root = open_folder(path)
    with ThreadPoolExecutor(READERS) as readers:
        heads = readers.map(partial(_head, storage, root), names)
        found = dict(zip(names, heads, strict=True))
    wrong = [(name, why) for name, why in found.items() if isinstance(why, str)]
    if wrong:
        told = "; ".join(f"{clipped(name)}: {why}" for name, why in wrong[:NAMED])
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise DataError(
            f"{clipped(path)}: {len(wrong)} image(s) that cannot be read ({told}{more}). "
            f"Fix: replace or remove them{advice}"
        )
    return {name: size for name, size in found.items() if not isinstance(size, str)}


def _head(storage: Storage, root: str, name: str) -> Sides | str:
    """Height and width by an image's first bytes, or why they are none of an image."""
    head = storage.cat_file(f"{root}/{name}", start=0, end=HEAD)
    try:
        image = Image.open(io.BytesIO(head), formats=FORMATS)
        lying = image.getexif().get(ORIENTATION, 1) >= LYING
        return image.size if lying else image.size[::-1]
    except Exception as error:  # broken pictures make decoders raise whatever they like
        empty = "the file is empty" if not head else ""
        kind = f"none of the formats that are read ({', '.join(FORMATS)})"
        return empty or (kind if "cannot identify" in str(error) else clipped(error))
