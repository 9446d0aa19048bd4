"""Where the actors' time goes: spans of every batch, carried by its rows, and what follows.

A span is one part of the work on one batch. Spans travel in a column beside the images, so that no
process has to be asked at the end; they leave it when the images are written.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from raysynth.storage.files import open_storage, write_atomic

TIMELINE = ".timeline.feather"
"""Such a name, and not Parquet: whoever opens the folder as a data set gets the images alone."""
BEFORE = "timeline.feather"
"""The same of versions before."""
LEAST_SECONDS, LONGEST_SECONDS = 1.0, 86_400.0
"""Within which spans are joined, where there are too many."""
DEVICE = ("unet", "decode", "score")
"""Parts that hold an actor's device; `encode` runs in tasks of its own, beside the actors."""
WORDS = {"unet": "UNet", "decode": "decode", "score": "scoring", "encode": "encoding"}
SPAN = pa.schema(
    [
        ("actor", pa.string()),
        ("part", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("images", pa.int32()),
    ]
)
"""`start` and `end` are seconds since 1970 on the clock of the worker's machine."""
COLUMN = pa.field("spans", pa.list_(pa.struct(SPAN)))


class Stopwatch:
    """The spans of one batch."""

    def __init__(self, actor: str, images: int) -> None:
        self.actor, self.images = actor, images
        self.spans: list[dict[str, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is inside; it must wait for its device before it ends."""
        start = time.time()
        yield
        span = {"actor": self.actor, "part": name, "start": start, "end": time.time()}
        self.spans.append({**span, "images": self.images})

    def column(self) -> pa.Array:
        """[images] the column `spans`: all of them in the batch's first row."""
        return pa.array([self.spans] + [None] * (self.images - 1), COLUMN.type)


def spans_of(column: pa.ChunkedArray) -> pa.Table:
    """The timeline's rows that are in a `spans` column."""
    spans = pc.list_flatten(column).combine_chunks()
    return pa.Table.from_struct_array(spans).cast(SPAN) if len(spans) else SPAN.empty_table()


def thinned(timeline: pa.Table, most: int) -> pa.Table:
    """No more than about `most` spans: those of an actor's part that lie close become one.

    Each such span is as long as they are together, so that nothing is added to `utilisation`.
    """
    width = LEAST_SECONDS
    while timeline.num_rows > most and width < LONGEST_SECONDS:
        slot = pc.floor(pc.divide(timeline["start"], width))
        long = pc.subtract(timeline["end"], timeline["start"])
        joined = (
            timeline.append_column("slot", slot)
            .append_column("long", long)
            .group_by(["actor", "part", "slot"])
            .aggregate([("start", "min"), ("long", "sum"), ("images", "sum")])
        )
        start = joined["start_min"]
        columns = [*(joined[name] for name in ("actor", "part")), start]
        columns += [pc.add(start, joined["long_sum"]), joined["images_sum"]]
        timeline = pa.table(columns, names=SPAN.names).cast(SPAN)
        width *= 2
    return timeline


def write_timeline(timeline: pa.Table, folder: str) -> None:
    """Write TIMELINE into a folder or URI."""
    sink = pa.BufferOutputStream()
    feather.write_feather(timeline, sink, compression="zstd")
    write_atomic(f"{folder}/{TIMELINE}", sink.getvalue())


def read_timeline(folder: str) -> pa.Table:
    """The timeline of a folder or URI; empty when there is none that can be read: a statistic."""
    for name in (TIMELINE, BEFORE):
        storage, path = open_storage(f"{folder}/{name}")
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            return feather.read_table(pa.BufferReader(storage.cat_file(path))).cast(SPAN)
    return SPAN.empty_table()


def utilisation(timeline: pa.Table) -> dict[str, Any]:
    """How busy the actors were, from the first batch's start to the last one's end.

    Returns
    -------
    busy, unet: share of the actors' time in which their device was held, and held by the UNet;
    parts: seconds of each part over the seconds of all, encoding's tasks included;
    seconds: from first start to last end; actors.
    """
    spent = dict.fromkeys(WORDS, 0.0)
    seconds = pc.subtract(timeline["end"], timeline["start"])
    for part, duration in zip(timeline["part"].to_pylist(), seconds.to_pylist(), strict=True):
        spent[part] += duration
    held = timeline.filter(pc.is_in(timeline["part"], pa.array(DEVICE)))
    actors = len(pc.unique(held["actor"]))
    if not actors:
        return {"busy": 0.0, "unet": 0.0, "parts": spent, "seconds": 0.0, "actors": 0}
    wall = pc.max(held["end"]).as_py() - pc.min(held["start"]).as_py()
    slots, total = actors * max(wall, 1e-9), max(sum(spent.values()), 1e-9)
    return {
        "busy": round(sum(spent[part] for part in DEVICE) / slots, 4),
        "unet": round(spent["unet"] / slots, 4),
        "parts": {part: round(value / total, 4) for part, value in spent.items()},
        "seconds": round(wall, 2),
        "actors": actors,
    }


def over_time(timeline: pa.Table, bins: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """[bins + 1] seconds since the first batch; each device part's [bins] share of the actors."""
    held = timeline.filter(pc.is_in(timeline["part"], pa.array(DEVICE)))
    start, end = held["start"].to_numpy(), held["end"].to_numpy()
    edges = np.linspace(start.min(), end.max(), bins + 1)
    inside = np.minimum(end[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
    part = np.array(held["part"].to_pylist())
    slots = len(pc.unique(held["actor"])) * max(edges[1] - edges[0], 1e-9)
    shares = {name: inside[part == name].clip(min=0).sum(0) / slots for name in DEVICE}
    return edges - edges[0], shares


def in_words(facts: dict[str, Any]) -> str:
    """`actors busy 93 %: UNet 71 %, decode 9 %, ...` of `utilisation`."""
    parts = ", ".join(f"{WORDS[part]} {100 * x:.0f} %" for part, x in facts["parts"].items())
    return f"actors busy {100 * facts['busy']:.0f} %: {parts}"
