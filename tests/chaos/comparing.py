"""A stage's outputs beside the undisturbed run's: rows lost, rows doubled, things equal by bits."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

TIMES = (
    "second",
    "trial",
    "config_digest",
    "created",
    "elapsed",
    "memory",
    "timing",
    "time",
    "duration",
)
"""What a key holds that tells of time, or of Tune's random names."""
RECORDS = ("results.json", "adapters.json", "adapter.json", "losses.json", "best.json")
"""JSON files that hold nothing but results."""
SCRATCH = ("tune/",)
"""Of random names: Tune's own files beside what the stage made of them."""


@dataclass
class Compared:
    """What became of the things in the reference: rows of tables, weights, records."""

    things: int = 0
    equal: int = 0
    lost: int = 0
    doubled: int = 0
    differ: list[str] = field(default_factory=list)
    """Files with something that is not equal."""
    stray: list[str] = field(default_factory=list)
    """Files that the reference does not have."""


def compare(folder: Path, reference: Path) -> Compared:
    """The files below a stage's folder, against those of the reference."""
    found = Compared()
    mine, theirs = _files(folder), _files(reference)
    found.stray = sorted(mine - theirs)
    for name in sorted(theirs):
        before = _things(reference / name)
        after = _things(folder / name) if name in mine else Counter()
        common = before & after
        keys = Counter(key for key, _ in before.elements())
        there = Counter(key for key, _ in after.elements())
        found.things += before.total()
        found.equal += common.total()
        found.lost += (keys - there).total()
        found.doubled += (there - keys).total()
        if before != after:
            found.differ.append(name)
    return found


def timeless(value: Any) -> Any:
    """A record without what differs from run to run: seconds, Tune's random trial names."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not _tells_of_time(k)}
    if isinstance(value, list):
        return [timeless(each) for each in value if not _tells_of_time(each)]
    return value


def weights(file: Path) -> bytes:
    """Names and bytes of a safetensors file's tensors, hashed; their order is left open."""
    whole = hashlib.sha256()
    with safe_open(file, "np") as tensors:
        for key in sorted(tensors.keys()):
            whole.update(key.encode() + tensors.get_tensor(key).tobytes())
    return whole.digest()


def _files(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {n for n in names if not n.startswith((".", *SCRATCH)) and "/." not in n}


def _things(file: Path) -> Counter[tuple[str, bytes]]:
    """(name, content) of what a file holds: its rows, or itself."""
    try:
        if file.suffix == ".parquet":
            return _rows(file)
        content = b""
        if file.suffix == ".safetensors":
            content = weights(file)
        elif file.name in RECORDS:
            content = json.dumps(timeless(json.loads(file.read_bytes())), sort_keys=True).encode()
    except (OSError, ValueError, SafetensorError) as error:
        return Counter([("", repr(error).encode())])
    return Counter([("", content)])


def _rows(file: Path) -> Counter[tuple[str, bytes]]:
    table = pq.ParquetFile(file).read()
    rows = table.select(timeless(table.column_names)).to_pylist()
    names = [str(row.get("id", "row")) for row in rows]
    return Counter(
        (name, hashlib.sha256(repr(row).encode()).digest())
        for name, row in zip(names, rows, strict=True)
    )


def _tells_of_time(name: Any) -> bool:
    return isinstance(name, str) and any(each in name for each in TIMES)
