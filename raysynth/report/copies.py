"""Nearest pairs: generated images beside the training images that they are most similar to."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from raysynth.report.content import Content
from raysynth.stages.run import Run
from raysynth.storage.tables import read_table
from raysynth.strips import Strip, mosaic, thumbnails
from raysynth.synthesis.shards import read_shards

PAIRS = 8
KINDS = {"rejected as copies": "copy", "most similar that were kept": "kept"}
COLUMNS = ["id", "cluster", "nearest", "nearest_similarity"]


@dataclass(frozen=True)
class PairSheet:
    """The most similar pairs of one group: generated images above, training images below."""

    group: int
    strips: tuple[Strip, ...]
    similarities: tuple[tuple[float, ...], ...]
    """Of the pairs of each strip, falling."""


def pair_sheets(content: Content, run: Run) -> list[PairSheet]:
    """One sheet per group: the copies that were rejected, and the nearest that were kept."""
    frame = _candidates(run)
    shown = {
        (g, kind): rows.nlargest(PAIRS, "nearest_similarity")
        for g in range(content.groups.count)
        for kind, column in KINDS.items()
        for rows in [frame[(frame["group"] == g) & frame[column]]]
    }
    made = pd.concat(shown.values())
    pixels = thumbnails(run.folder("synthesis"), made["id"].tolist())
    real = thumbnails(run.folder("ingest"), made["nearest"].unique().tolist())
    sheets = []
    for g in range(content.groups.count):
        strips, similarities = [], []
        for kind, column in KINDS.items():
            rows = shown[g, kind]
            pairs = [pixels[i] for i in rows["id"]] + [real[i] for i in rows["nearest"]]
            total = int((frame["group"].eq(g) & frame[column]).sum())
            strips.append(Strip(kind, total, mosaic(pairs, max(1, len(rows)))))
            similarities.append(tuple(rows["nearest_similarity"].tolist()))
        sheets.append(PairSheet(g, tuple(strips), tuple(similarities)))
    return sheets


def _candidates(run: Run) -> pd.DataFrame:
    selection = read_table(run.folder("selection")).to_pandas()
    synthetic = read_shards(run.folder("synthesis"), COLUMNS).to_pandas()
    return selection.merge(synthetic, on="id").sort_values("id")
