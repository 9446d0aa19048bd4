"""Shards and their manifest: what is damaged is named, never read in part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysynth.errors import DataError, StorageError
from raysynth.progress import Progress
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage.tables import write_table
from raysynth.synthesis.collect import Collector
from raysynth.synthesis.shards import (
    Shard,
    existing_record,
    read_manifest,
    read_shards,
    shard_files,
    write_manifest,
    write_shard,
)
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import COLUMN, read_timeline
from tests.synthesis.conftest import GROUPS

ROWS = 6


def rows(count: int, first: int = 0) -> pa.Table:
    """A block of finished rows."""
    kinds: dict[str, Any] = {"string": "x", "int32": 0, "int64": 0, "float": 0.5}
    columns = {
        field.name: [kinds.get(str(field.type))] * count
        for field in SYNTHETIC
        if field.name != "image"
    }
    columns["id"] = [f"g0-c0-{n:06d}" for n in range(first, first + count)]
    columns["image"] = [{"bytes": bytes([n]) * 50, "path": None} for n in range(count)]
    table = pa.table({n: pa.array(columns[n], SYNTHETIC.field(n).type) for n in SYNTHETIC.names})
    table = table.append_column(ROW, pa.array(range(first, first + count), ROW.type))
    return table.append_column(COLUMN, pa.nulls(count, COLUMN.type))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of six rows and their manifest."""
    records = []
    for number in range(2):
        block = f"{tmp_path}/block.parquet"
        write_table(rows(ROWS, number * ROWS), block)
        shard = Shard(f"group-0-{number:05d}.parquet", 0, number * ROWS, ROWS)
        blocks = {block: rows(ROWS, number * ROWS)[ROW.name].to_numpy()}
        records.append(write_shard(str(tmp_path), shard, blocks, GROUPS).record)
        Path(block).unlink()
    write_manifest(str(tmp_path), records, {})
    return tmp_path


def test_a_shard_of_fewer_rows_is_no_smaller_table(folder):
    assert read_shards(str(folder)).num_rows == 2 * ROWS
    path = folder / "group-0-00001.parquet"
    write_table(rows(2, ROWS).select(SYNTHETIC.names), str(path))
    with pytest.raises(DataError, match=r"group-0-00001\.parquet: 2 rows, expected 6"):
        read_shards(str(folder), ["id"])
    with pytest.raises(DataError, match=r"group-0-00001\.parquet: its content has sha256"):
        read_shards(str(folder))


def test_a_changed_byte_is_seen_where_images_are_read(folder):
    path = folder / "group-0-00000.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="changed after it was written"):
        read_shards(str(folder), ["id", "image"])


@pytest.mark.parametrize("harm", ["cut", "emptied", "deleted"])
def test_a_damaged_shard_is_named(folder, harm):
    path = folder / "group-0-00001.parquet"
    data = path.read_bytes()
    path.unlink() if harm == "deleted" else path.write_bytes(data[:400] if harm == "cut" else b"")
    for columns in (["id"], None):
        with pytest.raises(DataError, match=r"group-0-00001\.parquet"):
            read_shards(str(folder), columns)


def test_half_a_shard_of_an_earlier_attempt_is_not_believed(folder):
    shard = Shard("group-0-00000.parquet", 0, 0, ROWS)
    assert existing_record(str(folder), shard).rows == ROWS
    assert existing_record(str(folder), Shard(shard.file, 0, 0, ROWS + 1)) is None
    path = folder / shard.file
    path.write_bytes(path.read_bytes()[:300])
    assert existing_record(str(folder), shard) is None
    assert existing_record(str(folder), Shard("none.parquet", 0, 0, ROWS)) is None


def test_a_manifest_names_files_of_its_own_folder(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in ("../x.parquet", "/etc/x.parquet", "a/b.parquet", "..", ".", "", "x.json", 3, None):
        manifest["shards"][0]["file"] = file
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match=r"manifest\.json: not the manifest"):
            shard_files(str(folder))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "file": JSON | st.sampled_from(["group-0-00000.parquet", "group-0-00001.parquet"]),
        "group": JSON,
        "rows": JSON | st.just(ROWS),
        "sha256": JSON | st.just(""),
        "more": JSON,
    },
)
MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        "rows": JSON | st.just(ROWS),
        "shards": JSON | st.lists(RECORDS, max_size=3),
        "facts": JSON | st.just({}),
    },
)


def read_or_refuse(folder: Path) -> None:
    try:
        read_manifest(str(folder))
        read_shards(str(folder))
    except (DataError, StorageError) as error:
        assert "Fix:" in str(error) and str(folder) in str(error)


QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUIET
@given(content=MANIFESTS.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=60))
def test_any_manifest_is_read_or_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    read_or_refuse(folder)


@QUIET
@given(place=st.integers(0, 10_000), content=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_any_shard_is_read_or_refused(folder, place, content, cut):
    manifest = json.loads((folder / "manifest.json").read_text())
    for record in manifest["shards"]:
        record["sha256"] = ""  # as if nothing but Arrow looked at it
    (folder / "manifest.json").write_text(json.dumps(manifest))
    path = folder / "group-0-00000.parquet"
    before = path.read_bytes()
    place %= len(before)
    rest = b"" if cut else before[place + len(content) :]
    path.write_bytes(before[:place] + content + rest)
    read_or_refuse(folder)
    path.write_bytes(before)


def test_a_timeline_that_cannot_be_read_is_empty(tmp_path):
    (tmp_path / "timeline.feather").write_bytes(b"half")
    assert read_timeline(str(tmp_path)).num_rows == 0


def test_a_shard_that_could_not_be_written_is_written_later(ray_local, tmp_path, monkeypatch):
    """The follower's look fails for a while; it says so once, and all shards are there."""
    monkeypatch.setattr("raysynth.synthesis.collect.POLL_SECONDS", 0.05)
    for number in range(2):
        write_table(rows(ROWS, number * ROWS), f"{tmp_path}/blocks/b{number}-0.parquet")
        listed = rows(ROWS, number * ROWS).select([ROW.name])
        write_table(listed, f"{tmp_path}/checkpoint/b{number}.parquet")
    listed = tmp_path / "checkpoint/b2.parquet"
    said: list[str] = []
    progress = Progress()
    monkeypatch.setattr(progress, "say", said.append)
    shards = [Shard(f"group-0-{n:05d}.parquet", 0, n * ROWS, ROWS) for n in range(3)]
    collector = Collector(str(tmp_path), shards, GROUPS, progress)
    listed.write_bytes(b"half")
    with collector:
        for _ in range(200):
            if said:
                break
            collector._stop.wait(0.05)
        write_table(rows(ROWS, 2 * ROWS), f"{tmp_path}/blocks/b2-0.parquet")
        write_table(rows(ROWS, 2 * ROWS).select([ROW.name]), str(listed))
    assert [r.rows for r in collector.finish()] == [ROWS] * 3 and not collector.waiting
    assert len(said) == 1 and "b2.parquet: cannot be read" in said[0]
