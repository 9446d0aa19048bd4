"""Rows of a finished run's images, a shard at a time: what was generated, what was kept, the real.

Nothing leaves without its mark: an image that a version before drew without one gets it here. Real
images leave as pixels alone, whatever an earlier version may have kept of their files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raysynth.adapters.record import maker_of
from raysynth.datasets.bare import without_metadata
from raysynth.datasets.pictures import to_rgb_bytes
from raysynth.errors import DataError
from raysynth.finished import Made
from raysynth.groups.groups import Groups
from raysynth.stages.graph import stage_kind
from raysynth.storage.marks import Maker, marked
from raysynth.storage.tables import (
    IMAGE,
    REAL,
    SPLITS,
    groups_of,
    read_parts,
    read_table,
    schema_of,
    split_files,
    with_groups,
)
from raysynth.synthesis.shards import ShardRecord, read_shard, shard_records
from raysynth.terminal import masked

TUNED = "finetune"
STAGES = ("ingest", TUNED, "synthesis", "selection")
WHICH = {
    "kept": "the images that were kept",
    "all": "every candidate, rejected ones and copies too",
    "real": "the real images, all splits",
    "both": "the real images, and the kept ones in train",
}
"""Which images -> in words."""
JUDGED = pa.schema([("score", pa.float32()), ("copy", pa.bool_()), ("kept", pa.bool_())])
"""Columns of the selection that go with each image, where it has them."""
NOBODY = Maker()
ORIGIN = pa.field("synthetic", pa.bool_())
DIGEST = pa.field("adapter_sha256", pa.string())
Sign = Callable[[bytes, bool], bytes]
"""(encoded image, whether a photograph is in it) -> the same, signed."""


@dataclass(frozen=True)
class Source:
    """A file of the run's tables, of one split."""

    split: str
    path: str
    shard: ShardRecord | None = None
    """Of the synthetic table; None: of the real one."""


@dataclass(frozen=True)
class Rows:
    """The images of a run that are asked for, as one schema."""

    made: Made
    which: str
    """A key of WHICH."""
    makers: Mapping[str, Maker]
    """Generator -> what its images are made by."""
    sign: Sign | None = None
    _selection: dict[int, tuple[pd.Index, pa.Table]] = field(default_factory=dict, repr=False)

    @property
    def groups(self) -> Groups:
        """The run's."""
        return self.made.groups

    @cached_property
    def sources(self) -> list[Source]:
        """The files that hold them, in order: train, validation, test."""
        found: list[Source] = []
        if self.which != "real":
            folder = self.made.folders["synthesis"]
            found += [Source("train", f"{folder}/{s.file}", s) for s in shard_records(folder)]
        if self.which in ("real", "both"):
            real = self.made.folders["ingest"]
            found += [Source(split, file) for split in SPLITS for file in split_files(real, split)]
        return sorted(found, key=lambda each: SPLITS.index(each.split))

    @cached_property
    def schema(self) -> pa.Schema:
        """Of every piece, with the groups' names."""
        fields = [*REAL]
        if self.which != "real":
            folder = self.made.folders["synthesis"]
            own = schema_of(f"{folder}/{shard_records(folder)[0].file}")
            fields += [one for one in own if one.name not in REAL.names]
            fields += [DIGEST, *JUDGED]
        return with_groups(pa.schema([*fields, ORIGIN]), self.made.groups)

    def read(self, source: Source) -> pa.Table:
        """The rows of a file that are asked for, as `schema`; none may be left.

        Raises
        ------
        DataError
            The file, or its rows of the selection, are not what the run has made.
        """
        rows = self._drawn(source.shard) if source.shard else self._photographs(source)
        columns = [
            rows[one.name].cast(one.type)
            if one.name in rows.column_names
            else pa.nulls(rows.num_rows, one.type)
            for one in self.schema
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _photographs(self, source: Source) -> pa.Table:
        (rows,) = read_parts(self.made.folders["ingest"], REAL.names, [source.path])
        if groups_of(rows.schema).names != self.groups.names:  # of a split that was left in its own
            none = pa.repeat(pa.scalar(-1, pa.int32()), rows.num_rows)
            rows = _with(rows, attribute=none, group=none)
        images = [{**image, "bytes": bare(image["bytes"])} for image in rows["image"].to_pylist()]
        return _with(rows, image=pa.array(images, IMAGE), synthetic=_all(False, rows))

    def _drawn(self, shard: ShardRecord) -> pa.Table:
        rows = read_shard(self.made.folders["synthesis"], shard)
        judged = self._judged(shard, rows["id"])
        for name in JUDGED.names:
            if name in judged.column_names:
                rows = _with(rows, **{name: judged[name]})
        if self.which != "all":
            rows = rows.filter(rows["kept"])
        said = rows.select(["image", "generator", "adapter", "seed", "source"]).to_pylist()
        images = [{**row["image"], "bytes": self._marked(row)} for row in said]
        digests = [self._maker(row).adapters.get(row["adapter"]) for row in said]
        return _with(
            rows,
            image=pa.array(images, IMAGE),
            adapter_sha256=pa.array(digests, pa.string()),
            split=pa.repeat(pa.scalar("train"), len(said)),
            synthetic=_all(True, rows),
        )

    def _judged(self, shard: ShardRecord, ids: pa.ChunkedArray) -> pa.Table:
        """What the selection says of a shard's images; shards of a group follow each other."""
        if shard.group not in self._selection:
            folder = self.made.folders["selection"]
            table = read_table(folder, files=[f"{folder}/selection.parquet"])
            own = table.filter(pc.equal(table["group"], shard.group))
            self._selection.clear()
            self._selection[shard.group] = pd.Index(own["id"].to_pandas()), own
        known, own = self._selection[shard.group]
        place = known.get_indexer(ids.to_pandas())
        if (place < 0).any():
            raise DataError(
                f"{masked(self.made.folders['selection'])}: {(place < 0).sum()} images of "
                f"{shard.file} are not in it; expected all. Fix: raysynth verify RUN --redo "
                "selection, then run it again"
            )
        return own.take(place)

    def _maker(self, row: Mapping[str, Any]) -> Maker:
        return self.makers.get(row["generator"], NOBODY)

    def _marked(self, row: Mapping[str, Any]) -> bytes:
        edited = bool(row["source"])
        packet = self._maker(row).packet(row["adapter"], row["seed"], edited=edited)
        data = marked(row["image"]["bytes"], packet)
        return data if self.sign is None else self.sign(data, edited)


def rows_of(made: Made, which: str, sign: Sign | None = None) -> Rows:
    """The images of a run that are asked for; `made`: the run's `STAGES`."""
    tuned = {name: each for name, each in made.records.items() if stage_kind(name) == TUNED}
    makers = {
        name.partition("/")[2] or made.config.generator: maker_of(
            made.config.base, record.get("sha256", {})
        )
        for name, record in tuned.items()
    }
    return Rows(made, which, makers, sign)


def bare(data: bytes) -> bytes:
    """An encoded photograph without EXIF and whatever else is no pixel; upright as ingest made it.

    Raises DataError where it is no picture that can be read.
    """
    found = without_metadata(data)
    return to_rgb_bytes(data) if found is None else found


def _with(rows: pa.Table, **columns: Any) -> pa.Table:
    """The rows with these columns, in the place of those of their names."""
    for name, column in columns.items():
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, column)
        else:
            rows = rows.append_column(name, column)
    return rows


def _all(value: bool, rows: pa.Table) -> pa.Array:
    return pa.repeat(pa.scalar(value), rows.num_rows)
