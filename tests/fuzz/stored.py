"""What earlier stages and other machines left: manifests, shards, adapters, notes, records."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from raysynth.adapters.record import (
    Adapter,
    read_adapter,
    read_adapters,
    write_adapter,
    write_adapters,
)
from raysynth.benchmark.cells import Cell, plan_cells
from raysynth.benchmark.choices import choose, with_choices
from raysynth.benchmark.differences import differences_json, differences_markdown
from raysynth.benchmark.driver import Board, cells_to_run
from raysynth.benchmark.table import as_json, markdown, read_known, read_records
from raysynth.cluster.session import Session
from raysynth.config.config import Config
from raysynth.groups.groups import Groups
from raysynth.pipeline import open_run
from raysynth.scoring.columns import SYNTHETIC
from raysynth.selection.settings import SelectionConfig
from raysynth.selection.stage import SELECTION, select
from raysynth.storage.tables import to_parquet, with_groups
from raysynth.synthesis.shards import ShardRecord, read_shards, write_manifest
from tests.fuzz.harness import Target
from tests.fuzz.readers import TYPES
from tests.fuzz.values import changed_bytes, json_file, odd, scalars, words

GROUPS = Groups(("a", "b"), ("x", "y"), ("a", "b"), ("x", "y"))
Files = dict[str, bytes | str | None]
"""File below a folder -> its bytes; None: gone, "folder" or "link": such a thing instead."""


@dataclass
class Kept:
    """A folder as a run left it, which every input changes and the next one finds whole again."""

    folder: Path
    whole: dict[str, bytes]
    more: dict[str, Any] = field(default_factory=dict)

    def lay(self, changed: Files) -> None:
        """The folder as it was, but for these files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, data in {**self.whole, **changed}.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                file.write_bytes(data)
            elif data == "folder":
                file.mkdir()
            elif data == "link":
                file.symlink_to("/nowhere/at/all")


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def keep(folder: Path, **more: Any) -> Kept:
    """The folder as it is now."""
    return Kept(folder, files_of(folder), more)


def changed(name: str, data: bytes) -> st.SearchStrategy[Files]:
    """One file of a folder in another state."""
    rare = st.sampled_from((None, "folder", "link"))
    states = st.one_of(*[_json_or_bytes(data)] * 6, rare)
    return states.map(lambda state: {name: state})


def _json_or_bytes(data: bytes) -> st.SearchStrategy[bytes]:
    try:
        return json_file(json.loads(data))
    except ValueError:
        return st.one_of(changed_bytes(data), st.sampled_from((b"", data[: len(data) // 2])))


# Shards and the synthetic table's manifest


def _rows(group: int, count: int) -> pa.Table:
    values: dict[str, Any] = {
        f.name: [None] * count if pa.types.is_nested(f.type) else np.zeros(count).astype(
            "U1" if pa.types.is_string(f.type) else f.type.to_pandas_dtype()
        )
        for f in SYNTHETIC
    }  # fmt: skip
    values |= {"id": [f"g{group}-{n}" for n in range(count)], "group": [group] * count}
    return pa.table(values, schema=with_groups(SYNTHETIC, GROUPS))


SHARDS = {f"group-{g}-00000.parquet": _rows(g, 3 + g) for g in range(GROUPS.count)}


def _start_shards(folder: Path) -> Kept:
    import hashlib

    records = []
    for number, (name, rows) in enumerate(SHARDS.items()):
        data = to_parquet(rows)
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / name).write_bytes(data)
        records.append(ShardRecord(name, number, rows.num_rows, hashlib.sha256(data).hexdigest()))
    write_manifest(str(folder / "data"), records, {"images": 18})
    return keep(folder / "data")


SHARD_FILES = {name: to_parquet(rows) for name, rows in SHARDS.items()}
SHARD_MANIFEST = {
    "rows": 18,
    "shards": [
        {"file": name, "group": g, "rows": rows.num_rows, "sha256": "0" * 64}
        for g, (name, rows) in enumerate(SHARDS.items())
    ],
    "facts": {},
}


@st.composite
def shard_changes(draw: st.DrawFn) -> tuple[Files, list[str] | None]:
    """Some shards or the manifest in another state, and the columns that are read."""
    found: Files = {}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(SHARDS)))
        how = draw(st.sampled_from(("bytes", "bytes", "table", "rows", "other", "gone")))
        rows = SHARDS[name]
        if how == "bytes":
            found[name] = draw(st.one_of(changed_bytes(SHARD_FILES[name]), st.just(b"")))
        elif how == "rows":
            found[name] = to_parquet(rows.slice(0, draw(st.integers(0, 3))))
        elif how == "other":
            found[name] = SHARD_FILES[draw(st.sampled_from(sorted(SHARDS)))]
        elif how == "gone":
            found[name] = draw(st.sampled_from((None, "folder", "link")))
        else:
            at = draw(st.integers(0, rows.num_columns - 1))
            kind = draw(st.sampled_from(TYPES))
            column = kind([str(n) for n in range(rows.num_rows)])
            found[name] = to_parquet(rows.set_column(at, rows.schema.names[at], column))
    if draw(st.booleans()):
        found |= draw(
            st.one_of(st.just({".manifest.json": "valid"}), changed(".manifest.json", MANIFEST))
        )
    columns = draw(st.sampled_from((None, ["id", "group"], ["id", "clip_label", "cluster"])))
    return found, columns


MANIFEST = json.dumps(SHARD_MANIFEST).encode()


def _read_shards(kept: Kept, given: Any) -> Any:
    files, columns = given
    manifest = kept.whole[".manifest.json"]
    if isinstance(data := files.get(".manifest.json"), bytes):  # with the right hashes most often
        right = {s["file"]: s["sha256"] for s in json.loads(manifest)["shards"]}
        first, *others = right.values()
        data = data.replace(b"0" * 64, first.encode(), 1)
        for digest in others:
            data = data.replace(b"0" * 64, digest.encode(), 1)
        files = {**files, ".manifest.json": data}
    kept.lay({name: data for name, data in files.items() if data != "valid"})
    return read_shards(str(kept.folder), columns), columns


def _use_shards(kept: Kept, made: Any) -> None:
    read, columns = made
    assert read.schema.names == (columns or SYNTHETIC.names)
    manifest = json.loads((kept.folder / ".manifest.json").read_bytes())
    assert read.num_rows == sum(shard["rows"] for shard in manifest["shards"]), "rows are lost"
    assert read["id"].to_pylist() is not None


# A run's manifest


def _build(work: str) -> dict[str, Any]:
    Path(work, "part").mkdir(parents=True, exist_ok=True)
    for name in ("a.bin", "part/b.bin"):
        Path(work, name).write_bytes(b"content " * 9)
    return {"rows": 2, "groups": ["a", "b"]}


STAGES = (("ingest", {"seed": 0}), ("synthesis/vanilla", {"steps": 6}))


def _start_run(folder: Path) -> Kept:
    config = Config(storage_path=str(folder / "data"), name="r")
    for shared in (None, str(folder / "data" / "stages")):
        run = open_run(config, shared)
        for name, inputs in STAGES:
            run.stage(name, inputs, _build)
        if shared is None:
            own = (folder / "data" / "r" / "manifest.json").read_bytes()
            (folder / "own.json").write_bytes(own)
    (folder / "data" / "r" / "manifest.json").write_bytes((folder / "own.json").read_bytes())
    return keep(folder / "data", config=config, shared=str(folder / "data" / "stages"))


def _run_files() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return _start_run(Path(folder)).whole


@st.composite
def run_changes(draw: st.DrawFn) -> tuple[Files, bool]:
    """Files of a run in another state; whether its stages lie in a folder that runs share."""
    files, found = RUN_FILES, {}
    shared = draw(st.booleans())
    mine = [n for n in files if n.startswith("stages") == shared or n == "r/manifest.json"]
    for _ in range(draw(st.integers(1, 2))):
        names = [n for n in mine if n.endswith(".json")] * 3 + mine
        name = draw(st.sampled_from(names))
        found |= draw(changed(name, files[name]))
    if draw(st.integers(0, 5)) == 0:
        stem = draw(st.sampled_from(("ingest", "synthesis")))
        place = "stages/.partial" if shared else "r/.partial"
        found[f"{place}/{stem}-{'0' * 16}/.seconds"] = draw(
            st.sampled_from((b"", b"nan", b"inf", b"x", b"-1", b'"a"', b"[]", b"1e999", b"\xff"))
        )
    return found, shared


RUN_FILES = _run_files()


def _go_on(kept: Kept, given: Any) -> Any:
    files, shared = given
    kept.lay(files)
    run = open_run(kept.more["config"], kept.more["shared"] if shared else None)
    return run, [run.stage(name, inputs, _build) for name, inputs in STAGES]


def _use_run(kept: Kept, made: Any) -> None:
    """Every stage's files are there in full length; a second start skips them all."""
    run, stages = made
    for (name, inputs), stage in zip(STAGES, stages, strict=True):
        sized = run.manifest()["stages"][name].get("sizes")  # older records have none: believed
        for file in ("a.bin", "part/b.bin") if sized else ():
            assert Path(stage.path, file).stat().st_size == 72, "a file of another size"
        again = open_run(kept.more["config"], run.shared).stage(name, inputs, _build)
        assert again.skipped and again.path == stage.path == run.folder(name)
        assert isinstance(again.seconds, int | float) and again.seconds == again.seconds
        json.dumps(again.facts)


# Adapters


ADAPTER = Adapter("0-0", "lora", "cluster", 0, 0, "a", "x", "a photo", 12, 40, 0.25)


def _start_adapters(folder: Path) -> Kept:
    (folder / "data").mkdir()
    write_adapters([ADAPTER, ADAPTER], str(folder / "data"))
    write_adapter(ADAPTER, str(folder / "data"))
    return keep(folder / "data")


ONE = json.dumps(vars(ADAPTER), indent=1).encode()
BOTH = json.dumps([vars(ADAPTER)] * 2, indent=1).encode()


def _read_adapters(kept: Kept, given: Files) -> Any:
    kept.lay(given)
    return read_adapters(str(kept.folder)), read_adapter(str(kept.folder))


def _use_adapters(kept: Kept, made: Any) -> None:
    adapters, one = made
    write_adapters(adapters, str(kept.folder))
    assert read_adapters(str(kept.folder)) == adapters
    for adapter in (*adapters, *([one] if one else [])):
        assert isinstance(adapter.name, str) and isinstance(adapter.group, int)


# The note of a session


def _start_session(folder: Path) -> Any:
    (folder / "data").mkdir()
    root, before = str(folder / "data" / "run"), set(folder.rglob("*"))
    session = Session(Config(), root)
    with session:
        notes = [f for f in set(folder.rglob("*")) - before if f.suffix == ".json"]
    (note,) = notes
    return note, root


NOTE = {"driver": [4_194_305, 1000.5], "ray": [[4_194_306, 1001.5], [4_194_307, 1002.5]]}
"""Of processes that there cannot be: Linux has fewer."""


@st.composite
def notes(draw: st.DrawFn) -> bytes | str:
    """A note in another state, or something else in its place."""
    if draw(st.integers(0, 12)) == 0:
        return draw(st.sampled_from(("folder", "link", "fifo", "closed")))
    return draw(json_file(NOTE))


def _enter(state: Any, given: bytes | str) -> Any:
    note, root = state
    note.parent.mkdir(parents=True, exist_ok=True)
    if note.is_dir() and not note.is_symlink():
        note.rmdir()
    note.unlink(missing_ok=True)
    if isinstance(given, bytes):
        note.write_bytes(given)
    elif given == "folder":
        note.mkdir()
    elif given == "link":
        note.symlink_to("/nowhere/at/all")
    elif given == "fifo":
        os.mkfifo(note)
    else:
        note.write_bytes(b"{}")
        note.chmod(0)
    with Session(Config(), root) as session:
        return session, state


def _use_session(state: Any, made: Any) -> None:
    with Session(Config(), state[1]):
        pass


# Selections


@st.composite
def candidates(draw: st.DrawFn) -> tuple[dict[str, list[Any]], list[float], dict[str, Any], int]:
    """Columns of a synthetic table, limits of copies, the section, a seed."""
    count = draw(st.integers(0, 24))
    whole = draw(st.integers(0, 3)) > 0
    near = st.floats(-1, 1, width=32)
    value = (
        near
        if whole
        else st.one_of(near, st.sampled_from((None, *map(float, ("nan", "inf", "-inf")))))
    )
    group = [n % GROUPS.count for n in range(count)]
    columns: dict[str, list[Any]] = {
        "id": [f"g{g}-{n}" for n, g in enumerate(group)],
        "group": group,
        "cluster": draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)),
        **{
            name: draw(st.lists(value, min_size=count, max_size=count))
            for name in ("clip_label", "clip_centroid", "nearest_similarity")
        },
    }
    if not whole and count:
        at, name = (
            draw(st.integers(0, count - 1)),
            draw(st.sampled_from(("id", "group", "cluster"))),
        )
        odd_cell = {
            "id": (None, "g0-0", ""),
            "group": (None, -1, 4, 99, 2**31 - 1),
            "cluster": (None, -1, 10**9),
        }
        columns[name][at] = draw(st.sampled_from(odd_cell[name]))
    limits = draw(st.lists(st.sampled_from((0.9, 0.5, float("inf"), -1.0)), min_size=4, max_size=4))
    rule = draw(st.sampled_from(("quantile", "threshold", "random", "off")))
    section: dict[str, Any] = {
        "rule": rule,
        "alpha": draw(st.sampled_from((0.0, 0.5, 1.0))),
        "keep": draw(st.sampled_from((0.01, 0.75, 1.0))),
        "per_cluster": draw(st.booleans()),
    }
    if rule == "threshold":
        section["threshold"] = draw(st.floats(-1, 1))
    return columns, limits, section, draw(st.integers(0, 2**31 - 1))


SELECTED = {
    "id": pa.string(),
    "group": pa.int32(),
    "cluster": pa.int32(),
    "clip_label": pa.float32(),
    "clip_centroid": pa.float32(),
    "nearest_similarity": pa.float32(),
}


def _select(state: Any, given: Any) -> Any:
    columns, limits, section, seed = given
    arrays = {name: pa.array(columns[name], kind) for name, kind in SELECTED.items()}
    config = SelectionConfig(**section)
    return select(pa.table(arrays), np.array(limits, np.float32), config, GROUPS, seed)


def _use_selection(state: Any, made: pa.Table) -> None:
    """As many of each group, no copy, every score a number."""
    assert made.schema == SELECTION
    kept = made.filter(made["kept"])
    counts = np.bincount(kept["group"].to_numpy(), minlength=GROUPS.count)
    assert counts.min() == counts.max() > 0 and not any(kept["copy"].to_pylist())
    assert np.isfinite(kept["score"].to_numpy()).all()


# Records of earlier parts of a benchmark


ROWS: dict[str, dict[str, Any]] = {"vanilla": {"generator": "vanilla"}, "ours": {}}


def _start_records(folder: Path) -> Any:
    values = {"rows": ROWS, "seeds": 2, "by_validation": {"best": ["vanilla", "ours"]}}
    cells = plan_cells(Config.model_validate({"benchmark": values}))
    return folder / "records.csv", cells, str(folder / "stages")


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A records.csv of the cells (their digests are filled in later), changed."""
    rows = [
        {
            "row": name, "kind": kind, "uses_validation": False, "severity": 0.99, "seed": seed,
            "repetition": 0, "cell": f"CELL{number}", "validation_wga": 0.5, "wga": 0.25 + seed / 8,
            "aga": 0.75, "weighted": 0.5, "equalized_odds": 0.1, "demographic_parity": 0.1,
            "groups": '{"pullover/grass": 0.5, "coat/grass": 0.25}',
        }
        for number, (name, kind, seed) in enumerate(
            (n, k, s)
            for n, k in (("vanilla", "raysynth"), ("ours", "raysynth"), ("erm", "reference"))
            for s in (0, 1)
        )
    ]  # fmt: skip
    header = list(rows[0])
    body = [[str(value) for value in row.values()] for row in rows]
    for _ in range(draw(st.integers(0, 3))):
        at, column = draw(st.integers(0, len(body) - 1)), draw(st.integers(0, len(header) - 1))
        how = draw(st.sampled_from(("cell", "cell", "cell", "head", "drop", "double", "column")))
        if how == "cell":
            body[at][column] = str(draw(st.one_of(scalars, odd)))
        elif how == "column":
            value = str(draw(scalars))
            for row in body:
                row[column] = value
        elif how == "head":
            header[column] = draw(words)
        elif how == "double":
            body.append(list(body[at]))
        elif len(header) > 2:
            header[column : column + 1] = []
            for row in body:
                row[column : column + 1] = []
    text = io.StringIO()
    csv.writer(text).writerows([header, *body])
    data = text.getvalue().encode("utf-8", "replace")
    return draw(changed_bytes(data)) if draw(st.integers(0, 4)) == 0 else data


def _table(state: Any, given: bytes) -> Any:
    """What `raysynth benchmark --finished` makes of a file, but for the plot."""
    file, cells, shared = state
    for number in range(6):
        digest = cells[number % len(cells)].digest.encode()
        given = given.replace(f"CELL{number}".encode(), digest)
    file.write_bytes(given)
    known = read_known([str(file)])
    waiting = _waiting(cells, shared, known)
    found = read_records(cells, shared, known)
    if found.empty:
        return found, "", "", waiting
    choices = choose(found, {"best": ["vanilla", "ours"]})
    found = with_choices(found, choices)
    said = markdown(found) + differences_markdown(found, "vanilla")
    return found, said, as_json(found), differences_json(found, "vanilla")


def _waiting(cells: list[Cell], shared: str, known: pd.DataFrame) -> list[Cell]:
    board = Board(shared, [])
    board.look()
    return cells_to_run(cells, board, known)


def _use_table(state: Any, made: Any) -> None:
    found, said, text, _ = made
    if not found.empty:
        assert said.startswith("| row |") and json.loads(text)


def _nothing(folder: Path) -> None:
    return None


def target(
    name: str, inputs: Any, start: Callable[[Path], Any], *does: Any, share: float = 1
) -> Target:
    """A target of this module."""
    return Target(name, inputs, start, *does, share=share)


TARGETS = [
    target("shards and their manifest", shard_changes(), _start_shards, _read_shards, _use_shards),
    target("a run's manifest and files", run_changes(), _start_run, _go_on, _use_run, share=0.5),
    target("adapter.json, adapters.json",
           st.one_of(changed("adapters.json", BOTH), changed("adapter.json", ONE)),
           _start_adapters, _read_adapters, _use_adapters),
    target("session note", notes(), _start_session, _enter, _use_session, share=0.5),
    target("selections", candidates(), _nothing, _select, _use_selection),
    target("records.csv, to the table", records(), _start_records, _table, _use_table, share=0.3),
]  # fmt: skip
