"""Contact sheets: real, edited, synthetic kept and rejected images of every group-cluster."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from raysynth.report.content import Content
from raysynth.stages.run import Run
from raysynth.storage.tables import decode_images, read_parts, read_table

COLUMNS = 6
ROWS = 3
MOST_PIXELS = 96  # side of a thumbnail; larger images are reduced to it
SMALL_PIXELS = 64  # up to here every pixel is shown as it is, without loss
GAP = 1
EDITED = "edited"
KINDS = ("real", EDITED, "kept", "rejected")
Key = tuple[int, int, str]  # group, cluster, kind


@dataclass(frozen=True)
class Strip:
    """Some images of one kind of a group-cluster, and how many there are in all."""

    kind: str
    total: int
    image: Image.Image | None


@dataclass(frozen=True)
class Sheet:
    """The strips of one group-cluster."""

    group: int
    cluster: int
    strips: tuple[Strip, ...]


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
    synthetic = read_table(run.folder("synthesis"), ["id", "cluster", "source"]).to_pandas()
    selection = read_table(run.folder("selection")).to_pandas()
    made = selection.merge(synthetic, on="id").sort_values("score", ascending=False)
    made["kind"] = np.where(made["kept"], "kept", "rejected")
    chosen: dict[Key, list[str]] = {}
    totals: dict[Key, int] = {}
    for part in (frame, made):
        for (group, cluster, kind), rows in part.groupby(["group", "cluster", "kind"], sort=True):
            key = (int(group), int(cluster), str(kind))
            totals[key] = len(rows)
            shown = rows.iloc[_spaced(len(rows), COLUMNS * ROWS)]
            chosen[key] = shown["id"].tolist()
            if kind == "kept" and (shown["source"] != "").all():
                chosen[key[0], key[1], EDITED] = shown["source"].tolist()
                totals[key[0], key[1], EDITED] = rows["source"].nunique()
    return chosen, totals


def _spaced(count: int, most: int) -> np.ndarray:
    """At most `most` positions, evenly over range(count)."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _ids(chosen: dict[Key, list[str]], kinds: Sequence[str]) -> list[str]:
    return [i for (_, _, kind), ids in chosen.items() if kind in kinds for i in ids]


def thumbnails(folder: str, ids: Sequence[str]) -> dict[str, Image.Image]:
    """Reduced images by id; a table may exceed memory."""
    found: dict[str, Image.Image] = {}
    for rows in read_parts(folder, ["id", "image"], ids=pa.array(ids, pa.string())):
        for position, identity in enumerate(rows["id"].to_pylist()):
            image = Image.fromarray(decode_images(rows["image"].slice(position, 1))[0])
            image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
            found[identity] = image
    return found


def mosaic(images: Sequence[Image.Image], most: int = COLUMNS) -> Image.Image | None:
    """The images side by side, `most` per row, on a transparent ground; None without images."""
    if not images:
        return None
    side = max(max(image.size) for image in images)
    columns = min(most, len(images))
    rows = -(-len(images) // columns)
    size = (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP)
    canvas = Image.new("RGBA", size, (0, 0, 0, 0))
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        canvas.paste(image, (column * (side + GAP), row * (side + GAP)))
    return canvas


def poster(title: str, sheet: Sheet) -> Image.Image:
    """A sheet as one picture with its captions, readable outside the page."""
    return captioned(title, sheet.strips)


def captioned(title: str, shown: Sequence[Strip]) -> Image.Image:
    """Strips below each other with their kinds and totals."""
    strips = [(strip, _enlarged(strip.image)) for strip in shown if strip.image]
    width = max([420, *(image.width for _, image in strips)]) + 32
    height = 48 + sum(image.height + 40 for _, image in strips)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((16, 14), title, fill="black", font_size=18)
    top = 48
    for strip, image in strips:
        draw.text((16, top), f"{strip.kind} ({strip.total:,})", fill="#555", font_size=14)
        canvas.paste(image, (16, top + 20), image)
        top += image.height + 40
    return canvas


def _is_small(image: Image.Image) -> bool:
    return image.height <= ROWS * (SMALL_PIXELS + GAP)


def _enlarged(image: Image.Image) -> Image.Image:
    scale = 3 if _is_small(image) else 1
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    """The image as a `data:` URI: PNG for pixel art, WebP where thumbnails are large."""
    if _is_small(image):
        return "data:image/png;base64," + base64.b64encode(png(image)).decode()
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
