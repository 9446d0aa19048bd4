"""The audit of a data set: read, embedded, judged by linear heads; nothing is generated."""

from __future__ import annotations

import os
import time

import numpy as np
import pyarrow as pa

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.datasets.listing import classes_alone, list_dataset, split_counts
from raysynth.errors import DataError
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.inspection import properties as judged
from raysynth.inspection.findings import Findings
from raysynth.inspection.heads import agreement, heads
from raysynth.inspection.page import body
from raysynth.inspection.seen import Seen, encoded, look
from raysynth.inspection.tables import as_text
from raysynth.models.settings import BaseConfigSection

MOST = 1000
"""Images of each split that are looked at, unless more are asked for."""
SHOWN = 8
"""Training images of each group on the page."""
SIDE = 96
"""Of a picture on the page, pixels."""


class Audit(Findings):
    """What was found in a data set; as text its tables, in a notebook its page."""

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return body(self)


def audit_data(
    source: Config | str | os.PathLike[str], *settings: str, clip: str = "", most: int = MOST
) -> Audit:
    """Look at a data set's bias; seconds to minutes, on one core, without Ray.

    Parameters
    ----------
    source : a configuration or its file, or a folder of images.
    settings : as on the command line, over a file's.
    clip : CLIP whose image features are judged, as `base.clip`; "": the configuration's.
    most : images of each split that are looked at.

    Raises
    ------
    ConfigError, DataError, ModelError
        A data set that cannot be read, or has no two labels; a CLIP that is not there.
    """
    start = time.monotonic()
    config = _config(source, settings)
    dataset, groups, listing = list_dataset(config.dataset, config.seed)
    known = bool((listing["group"].to_numpy() != UNKNOWN).all()) and len(groups.attribute_names) > 1
    if not known:
        groups, listing = classes_alone(groups, listing)
    seen = look(dataset, listing, groups, most, config.seed)
    _check(seen)
    base = config.base.model_copy(update={"clip": clip} if clip else {})
    named = "" if isinstance(source, Config) else os.fspath(source)
    counts = split_counts(listing, groups)
    return _judged(seen, groups, counts, base, known, config.name, named, start)


def _judged(
    seen: Seen,
    groups: Groups,
    counts: dict[str, np.ndarray],
    base: BaseConfigSection,
    known: bool,
    name: str,
    source: str,
    start: float,
) -> Audit:
    """What is found in the images that were read; for the others see `Findings`."""
    train, group = seen.of("train"), seen.column("group").astype(np.int64)
    attribute = group % len(groups.attribute_names) if known else None
    told, doubles = _properties(seen, attribute)
    label = seen.column("label")[train]
    return Audit(
        name=name,
        groups=groups,
        counts=counts,
        known=known,
        association=float("nan") if attribute is None else agreement(label, attribute[train]),
        encoder="the embedded CLIP's" if base.clip == "embedded" else base.clip,
        heads=heads(_features(seen, base), seen, group, groups.count),
        properties=told,
        doubles=doubles,
        looked_at=len(seen.images),
        unreadable=seen.unreadable,
        source=source,
        samples=_samples(seen, groups),
        seconds=time.monotonic() - start,
    )


def _config(source: Config | str | os.PathLike[str], settings: tuple[str, ...]) -> Config:
    """A configuration as it is, of a file, or the one that fits a folder."""
    if isinstance(source, Config):
        return source
    name = os.fspath(source)
    if "://" not in name and not os.path.isdir(name):
        return load_config(name, settings)
    from raysynth.planning.proposal import propose

    found = propose(name, gpu=True).settings
    dataset = {key: value for key, value in found["dataset"].items() if key != "image_size"}
    return Config.model_validate({"name": found["name"], "dataset": dataset})


def _check(seen: Seen) -> None:
    for split in ("train", "validation"):
        if not len(seen.of(split)):
            raise DataError(
                f"dataset: no {split} image can be read; expected some of every group. Fix: see to "
                "the files"
            )


def _features(seen: Seen, base: BaseConfigSection) -> np.ndarray:
    """[N, D] embeddings of the frozen CLIP; of test images too, which no head is given."""
    from raysynth.models.clip import load_clip

    clip = load_clip(base)
    return encoded(seen.images, clip.size, clip.images)


def _properties(
    seen: Seen, attribute: np.ndarray | None
) -> tuple[list[judged.Property] | None, list[judged.Double]]:
    """What training images' properties tell, and look-alikes of all; (None, []): not installed.

    attribute [N]; None: not known.
    """
    if not judged.is_installed():
        return None, []
    values, sets = judged.measured(seen.images)
    train = seen.of("train")
    ids, splits, labels = (seen.rows[name].to_pylist() for name in ("id", "split", "label"))
    doubles = []
    for places, exact in sets:
        named, where, as_what = (tuple(of[row] for row in places) for of in (ids, splits, labels))
        doubles.append(judged.Double(named, where, as_what, exact))
    told = judged.properties(
        {name: each[train] for name, each in values.items()},
        seen.column("label")[train],
        None if attribute is None else attribute[train],
    )
    return told, doubles


def _samples(seen: Seen, groups: Groups) -> dict[int, list[bytes]]:
    """Some training images of each group, small."""
    from raysynth.storage.tables import decode_bytes, encode_png

    train, group = seen.of("train"), seen.column("group")
    found = {}
    for g in range(groups.count):
        rows = train[group[train] == g][:SHOWN]
        if len(rows):
            pixels = decode_bytes(pa.array([seen.images[row] for row in rows]), SIDE)
            found[g] = [encode_png(each) for each in pixels]
    return found
