"""Captions of images: a text beside each, or a column of a table; the training images' are kept.

`dataset.captions` names them. They lie beside the real table, not in it: fine-tuning and synthesis
alone read them.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from raysynth.datasets.files import clipped, open_folder, some
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import DamagedError, DataError
from raysynth.storage.files import exists, open_storage, write_atomic
from raysynth.terminal import masked

CAPTION = "caption"
"""Column of a listing; "": the image has none."""
FILE = ".captions.feather"
"""Such a name, and not Parquet: whoever opens the folder as a data set gets the images alone."""
LONGEST = 10_000
"""Characters of a caption, at most: longer ones are another kind of file."""
READERS = 16


def as_line(where: str, text: str) -> str:
    """A caption as one line; raises DataError for what is none."""
    said = " ".join(text.split())
    if len(said) > LONGEST:
        raise DataError(
            f"{clipped(where)}: {len(said):,} characters; expected a caption of at most "
            f"{LONGEST:,}. Fix: shorten it, or move the file elsewhere"
        )
    return said


def decoded(where: str, data: bytes) -> str:
    """The text of a file; raises DataError for what is no UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{clipped(where)}: no UTF-8 text; expected captions as text. Fix: save it as UTF-8"
        ) from None


def texts_beside(path: str, images: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Image -> what the `.txt` of its name says, of those that have one and that say something.

    Parameters
    ----------
    path : folder or URI.
    images, others : names of images and of all other files, relative to `path`.

    Raises
    ------
    DataError
        A text that is none, or too long.
    """
    storage, root = open_folder(path)
    beside: dict[str, list[str]] = defaultdict(list)
    for name in images:
        beside[posixpath.splitext(name)[0]].append(name)
    texts = [name for name in others if name.endswith(".txt") and name[:-4] in beside]
    found: dict[str, str] = {}
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(lambda name: bytes(storage.cat_file(f"{root}/{name}")), texts)
        for name, data in zip(texts, read, strict=True):
            where = f"{path}/{name}"
            if said := as_line(where, decoded(where, data)):
                found |= dict.fromkeys(beside[name[:-4]], said)
    return found


def require_captions(config: DatasetConfig, listing: pa.Table) -> None:
    """Refuse captions of which no training image has one: another column is meant; DataError."""
    if config.captions is None:
        return
    own, images = caption_counts(listing)
    if not own:
        raise DataError(
            f"dataset.captions={config.captions}: none of the {images:,} training images of "
            f"{clipped(config.path)} has a caption; expected one of each, or of some. Fix: name "
            "what holds them, or leave dataset.captions out"
        )


def caption_counts(listing: pa.Table) -> tuple[int, int]:
    """Training images that have a caption, and all of them."""
    said = listing[CAPTION].filter(pc.equal(listing["split"], "train"))
    return int(pc.sum(pc.not_equal(said, "")).as_py() or 0), len(said)


def keep(listing: pa.Table, folder: str) -> None:
    """Write the captions of a listing's training images into a stage's folder or URI."""
    rows = pc.and_(pc.equal(listing["split"], "train"), pc.not_equal(listing[CAPTION], ""))
    sink = pa.BufferOutputStream()
    table = listing.select(["id", CAPTION]).filter(rows)
    feather.write_feather(table, sink, compression="zstd")
    write_atomic(f"{folder}/{FILE}", sink.getvalue())


def carry(before: str, after: str) -> None:
    """Take the captions of a real table along to one of the same images, where it has any."""
    if exists(f"{before}/{FILE}"):
        storage, name = open_storage(f"{before}/{FILE}")
        write_atomic(f"{after}/{FILE}", storage.cat_file(name))


def read_captions(config: DatasetConfig, real: str) -> dict[str, str]:
    """Id of a training image -> its caption, of those that have one; none where none are asked for.

    `real`: folder or URI of the real table. Raises DamagedError where they cannot be read.
    """
    if config.captions is None:
        return {}
    path = f"{real}/{FILE}"
    storage, name = open_storage(path)
    try:
        table = feather.read_table(pa.BufferReader(storage.cat_file(name)))
        return dict(zip(*(table[key].to_pylist() for key in ("id", CAPTION)), strict=True))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedError(
            f"{masked(path)}: cannot be read ({clipped(error)}); expected the training images' "
            "captions. Fix: run again: they are made again",
            path,
        ) from error


def no_column(where: str, name: str, there: Sequence[str]) -> DataError:
    """The refusal of a table that has no column of captions of this name."""
    return DataError(
        f"{where}: no column {clipped(name)}; got {some(there)}; expected one of captions. Fix: "
        "dataset.captions=<a column>, or leave it out"
    )
