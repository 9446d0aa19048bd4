"""Contact sheets: real, edited, synthetic kept and rejected images of every group-cluster."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raysynth import pages
from raysynth.report.content import Content
from raysynth.stages.run import Run
from raysynth.storage.tables import read_table
from raysynth.strips import (
    COLUMNS,
    ROWS,
    Strip,
    captioned,
    is_small,
    mosaic,
    png,
    spaced,
    thumbnails,
)
from raysynth.synthesis.shards import read_shards

EDITED = "edited"
KINDS = ("real", EDITED, "kept", "rejected")
Key = tuple[int, int, str]  # group, cluster, kind
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
"""At equal steps of the colour circle."""
GREY = 0.08
"""Saturation of a mean colour below which it has no hue."""


@dataclass(frozen=True)
class Sheet:
    """The strips of one group-cluster."""

    group: int
    cluster: int
    strips: tuple[Strip, ...]

    def seen(self, kind: str) -> str:
        """What a strip shows, for those who cannot see it: how many images, how bright, the hue."""
        strip = next(strip for strip in self.strips if strip.kind == kind)
        return f": {min(strip.total, COLUMNS * ROWS)} of {strip.total:,}, {looks(strip.image)}"


def looks(image: Image.Image | None) -> str:
    """Brightness and hue of the mean of a picture's opaque pixels, in words."""
    if image is None:
        return "none"
    pixels = np.asarray(image.convert("RGBA"), np.float64).reshape(-1, 4)
    red, green, blue = pixels[pixels[:, 3] > 0, :3].mean(axis=0) / 255
    light = 100 * (red + green + blue) / 3
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    tint = "grey" if saturation < GREY else f"{HUES[round(hue * len(HUES)) % len(HUES)]} tint"
    return f"on average {light:.0f} % bright, {tint}"


def contact_sheets(content: Content, run: Run) -> list[Sheet]:
    """One sheet per group-cluster.

    Real images are drawn evenly over the cluster's ids; synthetic ones evenly from the best to the
    worst CLIP score, so that a sheet shows what was kept and rejected, not only the nicest. Where
    real images were edited, those of which the kept ones were made are shown in the same order.
    """
    chosen, totals = _choose(content, run)
    pixels = thumbnails(run.folder("ingest"), _ids(chosen, ("real", EDITED)))
    pixels |= thumbnails(run.folder("synthesis"), _ids(chosen, ("kept", "rejected")))
    keys = sorted({(group, cluster) for group, cluster, _ in totals})
    return [
        Sheet(
            group,
            cluster,
            tuple(
                Strip(
                    kind,
                    totals.get((group, cluster, kind), 0),
                    mosaic([pixels[i] for i in chosen.get((group, cluster, kind), ())]),
                )
                for kind in KINDS
                if kind != EDITED or (group, cluster, kind) in chosen
            ),
        )
        for group, cluster in keys
    ]


def _choose(content: Content, run: Run) -> tuple[dict[Key, list[str]], dict[Key, int]]:
    """Ids shown, and numbers of images, of each (group, cluster, kind)."""
    folder = run.folder("clustering")
    real = read_table(folder, ["id", "group", "cluster"], [f"{folder}/clusters.parquet"])
    frame = real.to_pandas().assign(kind="real").sort_values("id")
    synthetic = read_shards(run.folder("synthesis"), ["id", "cluster", "source"]).to_pandas()
    selection = read_table(run.folder("selection")).to_pandas()
    made = selection.merge(synthetic, on="id").sort_values("score", ascending=False)
    made["kind"] = np.where(made["kept"], "kept", "rejected")
    chosen: dict[Key, list[str]] = {}
    totals: dict[Key, int] = {}
    for part in (frame, made):
        for (group, cluster, kind), rows in part.groupby(["group", "cluster", "kind"], sort=True):
            key = (int(group), int(cluster), str(kind))
            totals[key] = len(rows)
            shown = rows.iloc[spaced(len(rows), COLUMNS * ROWS)]
            chosen[key] = shown["id"].tolist()
            if kind == "kept" and (shown["source"] != "").all():
                chosen[key[0], key[1], EDITED] = shown["source"].tolist()
                totals[key[0], key[1], EDITED] = rows["source"].nunique()
    return chosen, totals


def _ids(chosen: dict[Key, list[str]], kinds: Sequence[str]) -> list[str]:
    return [i for (_, _, kind), ids in chosen.items() if kind in kinds for i in ids]


def poster(title: str, sheet: Sheet) -> Image.Image:
    """A sheet as one picture with its captions, readable outside the page."""
    return captioned(title, sheet.strips)


def data_uri(image: Image.Image) -> str:
    """The image as a `data:` URI: PNG for pixel art, WebP where thumbnails are large."""
    if is_small(image):
        return pages.data_uri(png(image))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=88, xmp=image.info.get("xmp", b""))
    return pages.data_uri(buffer.getvalue())
