"""Shards and their manifest: what is damaged is named, never read in part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysynth.errors import DataError, StorageError
from raysynth.progress import Progress
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage.tables import read_table, write_table
from raysynth.synthesis.blocks import Block, name_of, ranges_of
from raysynth.synthesis.collect import Collector
from raysynth.synthesis.plan import batches
from raysynth.synthesis.shards import (
    Shard,
    ShardRecord,
    existing_record,
    plan_shards,
    read_manifest,
    read_shards,
    shard_files,
    write_manifest,
    write_shard,
)
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import COLUMN, read_timeline, spans_of
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
    return table.append_column(ROW, pa.array(range(first, first + count), ROW.type))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of six rows and their manifest."""
    records = []
    for number in range(2):
        block = f"{tmp_path}/block.parquet"
        write_table(rows(ROWS, number * ROWS), block)
        shard = Shard(f"group-0-{number:05d}.parquet", 0, number * ROWS, ROWS)
        blocks = {block: rows(ROWS, number * ROWS)[ROW.name].to_numpy()}
        records.append(write_shard(str(tmp_path), shard, blocks, GROUPS))
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
    manifest = json.loads((folder / ".manifest.json").read_text())
    for file in ("../x.parquet", "/etc/x.parquet", "a/b.parquet", "..", ".", "", "x.json", 3, None):
        manifest["shards"][0]["file"] = file
        (folder / ".manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match=r"manifest\.json: not the manifest"):
            shard_files(str(folder))


def test_a_table_of_before_is_read_by_its_manifests_old_name(folder):
    before = read_shards(str(folder))
    (folder / ".manifest.json").rename(folder / "manifest.json")
    assert read_shards(str(folder)).equals(before)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"/manifest\.json: not the manifest"):
        read_shards(str(folder))


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
    (folder / ".manifest.json").write_bytes(content)
    read_or_refuse(folder)


@QUIET
@given(place=st.integers(0, 10_000), content=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_any_shard_is_read_or_refused(folder, place, content, cut):
    manifest = json.loads((folder / ".manifest.json").read_text())
    for record in manifest["shards"]:
        record["sha256"] = ""  # as if nothing but Arrow looked at it
    (folder / ".manifest.json").write_text(json.dumps(manifest))
    path = folder / "group-0-00000.parquet"
    before = path.read_bytes()
    place %= len(before)
    rest = b"" if cut else before[place + len(content) :]
    path.write_bytes(before[:place] + content + rest)
    read_or_refuse(folder)
    path.write_bytes(before)


def test_a_timeline_that_cannot_be_read_is_empty(tmp_path):
    (tmp_path / ".timeline.feather").write_bytes(b"half")
    assert read_timeline(str(tmp_path)).num_rows == 0


def put(folder: Path, start: int, stop: int) -> Block:
    """A block of rows on disk."""
    table = rows(stop - start, start)
    block = Block(name_of(ranges := ranges_of(table[ROW.name].to_numpy())), ranges)
    write_table(table, f"{folder}/blocks/{block.file}")
    return block


def shards_of(count: int) -> list[Shard]:
    return plan_shards([(0, 0, count * ROWS)], ROWS)


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blocks").iterdir()}


def test_a_shard_that_could_not_be_written_is_written_later(ray_local, tmp_path, monkeypatch):
    """A block is gone for a while; the follower says so once, and all shards are there."""
    monkeypatch.setattr("raysynth.synthesis.collect.POLL_SECONDS", 0.05)
    blocks = [put(tmp_path, ROWS * n, ROWS * (n + 1)) for n in range(3)]
    away = tmp_path / "blocks" / blocks[2].file
    said: list[str] = []
    progress = Progress()
    monkeypatch.setattr(progress, "say", said.append)
    collector = Collector(str(tmp_path), shards_of(3), GROUPS, progress)
    assert collector.done == 3 * ROWS and not len(collector.missing)
    data = away.read_bytes()
    away.write_bytes(b"half")
    with collector:
        for _ in range(400):
            if said:
                break
            collector._stop.wait(0.05)
        away.write_bytes(data)
    assert [r.rows for r in collector.finish()] == [ROWS] * 3 and not collector.waiting
    assert len(said) == 1 and f"{blocks[2].file}: cannot be read" in said[0]
    assert not files(tmp_path)


def test_what_is_missing_is_known_by_ranges(ray_local, tmp_path):
    """Blocks that overlap, one across two shards, a shard that is there, and what nobody wrote."""
    shards = shards_of(4)
    first = put(tmp_path, 0, ROWS)
    rows_of = {f"{tmp_path}/blocks/{first.file}": np.arange(ROWS)}
    write_shard(str(tmp_path), shards[0], rows_of, GROUPS)
    for start, stop in ((7, 9), (8, 14), (20, 22)):
        put(tmp_path, start, stop)
    (tmp_path / "blocks/2a_000001-0.parquet").write_bytes(b"of a version before")
    (tmp_path / "blocks/rows-000000000000-000000000024.parquet.1f.tmp").write_bytes(b"torn")
    collector = Collector(str(tmp_path), shards, GROUPS, Progress())
    assert collector.missing.tolist() == [[6, 7], [14, 20], [22, 24]]
    assert collector.done == ROWS + 7 + 2
    assert first.file not in files(tmp_path), "its shard is there"
    asked = batches(collector.missing, 4)
    assert asked["start"].to_pylist() == [6, 14, 16, 22]
    assert asked["stop"].to_pylist() == [7, 16, 20, 24]


def test_a_block_that_is_told_of_twice_stays_until_its_shard_is_written(ray_local, tmp_path):
    collector = Collector(str(tmp_path), shards_of(2), GROUPS, Progress())
    none = spans_of(pa.chunked_array([pa.nulls(1, COLUMN.type)]))
    early = put(tmp_path, 0, 4)
    for _ in range(2):
        collector.take(early, none)
    collector.step()
    assert collector.done == 4 and files(tmp_path) == {early.file}
    collector.take(put(tmp_path, 4, 2 * ROWS), none)
    assert len(collector.finish()) == 2 and collector.done == 2 * ROWS and not files(tmp_path)
    collector.take(put(tmp_path, 0, 4), none)  # by a worker that was given up
    collector.step()
    assert collector.done == 2 * ROWS and not files(tmp_path)
    table = read_table(str(tmp_path), ["id"], [f"{tmp_path}/{s.file}" for s in shards_of(2)])
    assert table["id"].to_pylist() == [f"g0-c0-{n:06d}" for n in range(2 * ROWS)]


def test_a_shard_is_believed_by_its_note_and_read_without_one(ray_local, tmp_path, monkeypatch):
    folder = tmp_path / "runs [v2]"
    collector = Collector(str(folder), shards_of(3), GROUPS, Progress())
    none = spans_of(pa.chunked_array([pa.nulls(1, COLUMN.type)]))
    for n in range(3):
        collector.take(put(folder, ROWS * n, ROWS * (n + 1)), none)
    made = {record.file: record for record in collector.finish()}
    (folder / "notes/group-0-00001.parquet.json").unlink()
    for name, data in (("x", b"[3]"), ("y", b"{}"), ("z", b"half")):
        (folder / f"notes/{name}.json").write_bytes(data)
    cut = folder / "group-0-00002.parquet"
    cut.write_bytes(cut.read_bytes()[:200])
    read: list[str] = []

    def existing(folder: str, shard: Shard) -> ShardRecord | None:
        read.append(shard.file)
        return existing_record(folder, shard)

    monkeypatch.setattr("raysynth.synthesis.shards.existing_record", existing)
    again = Collector(str(folder), shards_of(3), GROUPS, Progress())
    assert [made[record.file] for record in again.records] == again.records
    assert again.missing.tolist() == [[2 * ROWS, 3 * ROWS]] and again.done == 2 * ROWS
    assert read == ["group-0-00001.parquet", "group-0-00002.parquet"]


def test_scattered_rows_are_a_block_too(ray_local, tmp_path):
    """As of images that are edited, which are drawn by the file of the real image."""
    table = rows(2 * ROWS)
    ranges = ranges_of(np.array([5, 0, 1, 7]))
    assert ranges.tolist() == [[0, 2], [5, 6], [7, 8]] and not len(ranges_of(np.zeros(0)))
    scattered = Block(name_of(ranges), ranges)
    write_table(table.take([0, 1, 5, 7]), f"{tmp_path}/blocks/{scattered.file}")
    collector = Collector(str(tmp_path), shards_of(2), GROUPS, Progress())
    assert collector.missing.tolist() == [[2, 5], [6, 7], [8, 12]]
