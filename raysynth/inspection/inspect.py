"""The audit of a data set: read, embedded, judged by linear heads; nothing is generated."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.datasets.listing import classes_alone, list_dataset, split_counts
from raysynth.errors import DataError
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.inspection import properties as judged
from raysynth.inspection.findings import Audit
from raysynth.inspection.heads import agreement, heads
from raysynth.inspection.seen import Seen, encoded, look

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 2000
"""Images of each split that are looked at, unless more are asked for."""
SHOWN = 8
"""Training images of each group on the page."""


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
    features = _features(seen, base)
    label, group = seen.column("label"), seen.column("group").astype(np.int64)
    train = seen.of("train")
    attribute = group % len(groups.attribute_names)
    values, doubles = _properties(seen)
    return Audit(
        name=config.name,
        groups=groups,
        counts=split_counts(listing, groups),
        known=known,
        association=agreement(label[train], attribute[train]) if known else float("nan"),
        encoder="the embedded CLIP's" if base.clip == "embedded" else base.clip,
        heads=heads(features, seen, group),
        properties=None
        if values is None
        else judged.properties(
            {name: each[train] for name, each in values.items()},
            label[train],
            attribute[train] if known else None,
        ),
        doubles=doubles,
        looked_at=len(seen.images),
        unreadable=seen.unreadable,
        seconds=time.monotonic() - start,
        source="" if isinstance(source, Config) else os.fspath(source),
        samples=_samples(seen, groups),
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
    told: dict[str, Any] = {key: found[key] for key in ("name", "dataset")}
    return Config.model_validate(told)


def _check(seen: Seen) -> None:
    for split in ("train", "validation"):
        if not len(seen.of(split)):
            raise DataError(
                f"dataset: no {split} image can be read; expected some of every group. Fix: see to "
                "the files"
            )


def _features(seen: Seen, base: Any) -> np.ndarray:
    """[N, D] embeddings of the frozen CLIP; of test images too, which no head is given."""
    from raysynth.models.clip import load_clip

    clip = load_clip(base)
    return encoded(seen.images, clip.size, clip.images)


def _properties(
    seen: Seen,
) -> tuple[Mapping[str, np.ndarray] | None, list[judged.Double]]:
    """Property -> [N] values, and images that look alike; (None, []) without cleanvision."""
    if not judged.is_installed():
        return None, []
    values, sets = judged.measured(seen.images)
    ids, splits, labels = (seen.rows[name].to_pylist() for name in ("id", "split", "label"))
    doubles = [
        judged.Double(
            tuple(ids[place] for place in places),
            tuple(splits[place] for place in places),
            tuple(labels[place] for place in places),
            exact,
        )
        for places, exact in sets
    ]
    return values, doubles


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


SIDE = 96
"""Of a picture on the page, pixels."""
