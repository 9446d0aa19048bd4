"""gallery.html: every generated image of a run, to be sorted, filtered and looked at one by one.

Thumbnails are in the page, which is one file: it opens from a disk, by mail and from an object
store. Where images are larger than their thumbnails, files in full size lie in gallery/ beside it.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from raysynth.errors import DataError
from raysynth.report.content import Content
from raysynth.report.settings import ReportConfig
from raysynth.report.sheets import data_uri
from raysynth.stages.run import Run
from raysynth.storage.files import exists, write_atomic
from raysynth.storage.tables import STORED, read_parts, read_table, split_files
from raysynth.strips import MOST_PIXELS, spaced
from raysynth.synthesis.shards import read_shards

REAL = 200
"""Training images of a group that are shown, besides those that are the nearest of some."""
SEEN = "images.parquet"
"""What the stage of fidelity says of each image; earlier versions did not."""
QUALITY = 90
"""Of the WebP files in full size."""
MEGABYTE = 2**20
COLUMNS = [
    *("id", "cluster", "adapter", "source", "prompt", "seed"),
    *("nearest", "nearest_similarity"),
]


@dataclass
class Gallery:
    """The images of a gallery.

    `made`: rows of the generated ones that are in it, by group and falling score; `real`: ids of
    the training images, by group; `total`: generated ones that there are. Filled as pixels are
    read: `sources` (id -> data URI), `full` (id -> file), `colours` (id -> mean red, green, blue,
    shares of 1).
    """

    made: pd.DataFrame
    real: dict[int, list[str]]
    total: int
    sources: dict[str, str] = field(default_factory=dict)
    full: dict[str, str] = field(default_factory=dict)
    colours: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    larger: int = 0
    """Images that are larger than their thumbnails."""

    @property
    def count(self) -> int:
        """Generated images in it."""
        return len(self.made)


def read_gallery(content: Content, run: Run, work: str) -> Gallery | None:
    """The gallery of a run; writes images in full size to `work`/gallery/. None: asked for none."""
    settings: ReportConfig = content.config.report
    if not settings.gallery_images:
        return None
    made = _candidates(run)
    chosen = _of_each(made, settings.gallery_images // content.groups.count)
    gallery = Gallery(chosen, _training(chosen, run), len(made))
    limit = settings.full_size_megabytes * MEGABYTE
    ids = chosen["id"].tolist()
    _read(gallery, run.folder("synthesis"), ids, _Writer(work, 0.75 * limit, len(ids)))
    real = [i for of_group in gallery.real.values() for i in of_group]
    _read(gallery, run.folder("ingest"), real, _Writer(work, 0.25 * limit, len(real)))
    return gallery


def _candidates(run: Run) -> pd.DataFrame:
    """All candidates with what is known of each, by group and falling score."""
    synthetic = read_shards(run.folder("synthesis"), COLUMNS).to_pandas()
    made = read_table(run.folder("selection")).to_pandas().merge(synthetic, on="id")
    seen = f"{run.folder('fidelity')}/{SEEN}" if "fidelity" in run.manifest()["stages"] else ""
    if seen and exists(seen):
        found = read_table(seen.rpartition("/")[0], ["id", "label"], [seen]).to_pandas()
        made = made.merge(found.rename(columns={"label": "shows"}), on="id", how="left")
    else:
        made["shows"] = None
    return made.sort_values(["group", "score", "id"], ascending=[True, False, True])


def _of_each(made: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows of every group, evenly from the best to the worst score."""
    parts = [rows.iloc[spaced(len(rows), max(1, most))] for _, rows in made.groupby("group")]
    return pd.concat(parts).reset_index(drop=True)


def _training(made: pd.DataFrame, run: Run) -> dict[int, list[str]]:
    """Group -> ids of the training images that are shown: the nearest ones, and some others."""
    real = run.real
    table = read_table(real, ["id", "group"], split_files(real, "train")).to_pandas()
    wanted = set(made["nearest"]) | set(made["source"])
    found = {}
    for g, rows in table.groupby("group"):
        ids = rows["id"].sort_values().tolist()
        some = {ids[n] for n in spaced(len(ids), REAL)}
        found[int(str(g))] = [i for i in ids if i in some or i in wanted]
    return found


class _Writer:
    """Files in full size, up to `limit` bytes; evenly spread over `count` images."""

    def __init__(self, work: str, limit: float, count: int) -> None:
        self.work, self.limit, self.count = work, limit, count
        self.seen = self.written = 0
        self.every = 1.0

    def write(self, image: Image.Image, identity: str) -> str:
        """The file's name below the page's folder; nothing where it is left out."""
        self.seen += 1
        if self.limit <= self.written or int(self.seen / self.every) == int(
            (self.seen - 1) / self.every
        ):
            return ""
        buffer = io.BytesIO()
        image.save(buffer, format="WEBP", quality=QUALITY, xmp=image.info.get("xmp", b""))
        data = buffer.getvalue()
        if not self.written:
            self.every = max(1.0, self.count * len(data) / self.limit)
        self.written += len(data)
        safe = base64.urlsafe_b64encode(identity.encode()).decode().rstrip("=")[-60:]
        name = f"gallery/{self.count}-{self.seen}-{safe}.webp"
        write_atomic(f"{self.work}/{name}", data)
        return name


def _read(gallery: Gallery, folder: str, ids: Sequence[str], writer: _Writer) -> None:
    """Thumbnails, mean colours and files of these images; a table may exceed memory."""
    for rows in read_parts(folder, ["id", "image"], ids=pa.array(ids, pa.string())):
        for identity, cell in zip(rows["id"].to_pylist(), rows["image"], strict=True):
            stored = Image.open(io.BytesIO(cell["bytes"].as_py()), formats=STORED).convert("RGB")
            image = stored.copy()
            image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
            if image.size != stored.size:
                gallery.larger += 1
                if name := writer.write(stored, identity):
                    gallery.full[identity] = name
            gallery.sources[identity] = data_uri(image)
            gallery.colours[identity] = np.asarray(image, np.float64).mean(axis=(0, 1)) / 255
    if missing := set(ids) - set(gallery.sources):
        raise DataError(
            f"{len(missing)} of {len(set(ids))} images of the gallery are not there, e.g. "
            f"{min(missing)}; expected all of their table. Fix: raysynth verify RUN says which "
            "file has changed"
        )


def groups_of(gallery: Gallery, content: Content) -> list[dict[str, Any]]:
    """What the page's script reads of every group: JSON-able, prompts and adapters once each."""
    return [_group(gallery, content, g) for g in range(content.groups.count)]


def _group(gallery: Gallery, content: Content, g: int) -> dict[str, Any]:
    rows = gallery.made[gallery.made["group"] == g]
    prompts, adapters = (
        {said: place for place, said in enumerate(dict.fromkeys(rows[name]))}
        for name in ("prompt", "adapter")
    )
    needed = dict.fromkeys([*gallery.real.get(g, []), *rows["nearest"], *rows["source"]])
    return {
        "name": content.groups.names[g],
        "label": content.groups.label_names[content.groups.label(g)],
        "prompts": list(prompts),
        "adapters": list(adapters),
        "made": [_made(row, gallery, prompts, adapters) for row in rows.to_dict(orient="records")],
        "shown": gallery.real.get(g, []),
        "real": {i: _pixels(gallery, i) for i in needed if i in gallery.sources},
    }


def _made(
    row: Mapping[Any, Any],
    gallery: Gallery,
    prompts: Mapping[str, int],
    adapters: Mapping[str, int],
) -> dict[str, Any]:
    shows = row["shows"]
    return {
        "id": row["id"],
        "kind": "kept" if row["kept"] else "copy" if row["copy"] else "rejected",
        "score": round(float(row["score"]), 4),
        "cluster": int(row["cluster"]),
        "adapter": adapters[row["adapter"]],
        "prompt": prompts[row["prompt"]],
        "seed": int(row["seed"]),
        "source": row["source"],
        "near": row["nearest"],
        "similarity": round(float(row["nearest_similarity"]), 3),
        "shows": None if shows is None or pd.isna(shows) else bool(shows),
        **_pixels(gallery, row["id"]),
    }


def _pixels(gallery: Gallery, identity: str) -> dict[str, str]:
    return {"src": gallery.sources[identity], "full": gallery.full.get(identity, "")}


def in_words(gallery: Gallery) -> str:
    """What is in the gallery, and what was left out."""
    said = f"{gallery.count:,} generated images"
    if gallery.count < gallery.total:
        said += f" of {gallery.total:,} (report.gallery_images), evenly from best to worst score"
    if not gallery.larger:
        return f"{said}; every pixel is shown as it is."
    return (
        f"{said}; {len(gallery.full):,} of {gallery.larger:,} images can be opened in full size "
        "(report.full_size_megabytes), the others as thumbnails: all are in synthetic/*.parquet "
        "by their id."
    )


def scripted(value: Any) -> str:
    """JSON that may stand in a `<script>`."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
