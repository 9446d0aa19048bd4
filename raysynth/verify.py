"""A run's finished stages, file by file, against what was recorded of them; stages made again.

Everything is read from the run's folder: no configuration, no model, no Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from raysynth.cluster.lease import Lease
from raysynth.errors import ConfigError, DataError
from raysynth.method import FOLDERS
from raysynth.models.finite import fault_of
from raysynth.progress import Progress
from raysynth.stages.graph import stage_kind
from raysynth.stages.record import MANIFEST, SHARED, as_json, read_manifest, shared_name
from raysynth.stages.shelf import PARTIAL, Shelf
from raysynth.storage.files import misfits, open_storage, remove, sizes_below
from raysynth.storage.files import write_atomic as write
from raysynth.storage.hashes import AT_ONCE, sha256_of
from raysynth.storage.tables import count_rows, read_parts
from raysynth.synthesis import shards
from raysynth.terminal import clipped, masked, shown

TABLES = {
    "ingest": "",
    "clustering": "clusters.parquet",
    "selection": "selection.parquet",
    "search": "trials.parquet",
}
"""Stage -> the file that has the rows of its record; "": all of its Parquet files together."""
SHARDS = "synthesis"
"""The stage whose own manifest says the rows of each."""
SHOWN = 10
"""Faults of a stage that are told one by one."""


@dataclass(frozen=True)
class Checked:
    """What was found of one stage."""

    name: str
    files: int
    size: int
    """Bytes of them."""
    faults: tuple[str, ...]
    """A sentence each, with the path."""

    def lines(self) -> list[str]:
        """What is told of it."""
        mark, more = "✗" if self.faults else "✓", len(self.faults) - SHOWN
        first = f"{mark} {self.name:<15} {self.files:>7,} files {self.size / 1e6:>11,.1f} MB"
        told = [*self.faults[:SHOWN], *([f"{more:,} more"] if more > 0 else [])]
        return [first, *(f"    {fault}" for fault in told)]


def verify(
    root: str, display: Progress, tell: Callable[[str], None] | None = None
) -> list[Checked]:
    """Check every finished stage of a run: files, sizes, SHA-256, rows, weights.

    Parameters
    ----------
    root : the run's folder or URI.
    display : is told how far it is.
    tell : is told a line per stage, and one per fault; None: the display is.

    Raises
    ------
    ConfigError
        No run is there.
    DataError
        Stages are not as they were made; or the manifest cannot be read.
    """
    manifest, found = _manifest(root), []
    shelf = Shelf(root, FOLDERS, manifest.get(SHARED))
    for name, record in manifest["stages"].items():
        display.stage(name)
        checked = _check(name, shelf.at(name, record), record, display)
        for line in checked.lines():
            (tell or display.say)(line)
        found.append(checked)
    if bad := [each for each in found if each.faults]:
        fix = " ".join(f"--redo {each.name}" for each in bad)
        raise DataError(
            f"{masked(root)}: {len(bad)} of {len(found)} finished stages are not as they were made "
            f"({', '.join(each.name for each in bad)}). Fix: raysynth verify {masked(root)} {fix}, "
            "then run it again"
        )
    return found


def redo(root: str, names: Sequence[str], display: Progress) -> list[str]:
    """Forget stages of a run, and those that were made of them: the next run makes them again.

    Returns
    -------
    Names of all that was forgotten, in the run's order.

    Raises
    ------
    ConfigError
        No run is there, it has not finished such a stage, or a driver is at work on it.
    """
    manifest = _manifest(root)
    stages = manifest["stages"]
    for name in names:
        if not any(name in (stage, stage_kind(stage)) for stage in stages):
            raise ConfigError(
                f"--redo: got {clipped(shown(name))!r}; expected a finished stage of "
                f"{masked(root)}: {', '.join(stages) or 'there is none'}. Fix: one of these"
            )
    gone = _made_of([s for s in stages if s in names or stage_kind(s) in names], stages)
    shelf, lease = Shelf(root, FOLDERS, manifest.get(SHARED)), Lease(root)
    lease.take(display)
    try:
        kept = {name: record for name, record in stages.items() if name not in gone}
        write(f"{root}/{MANIFEST}", as_json({**manifest, "stages": kept}))
        for name in gone:
            shelf.drop(shelf.at(name, stages[name]))
            remove(f"{shelf.home}/{PARTIAL}/{shared_name(name, stages[name]['digest'])}")
            asked = name in names or stage_kind(name) in names
            display.say(f"{name}: forgotten{'' if asked else ', for it was made of those'}")
    finally:
        lease.release()
    return gone


def _manifest(root: str) -> dict[str, Any]:
    manifest = read_manifest(root)
    if manifest is None:
        raise ConfigError(
            f"{masked(root)}: no run is there, or none that has finished a stage. Fix: the folder "
            "or URI of a run, or the configuration that it was run with"
        )
    return manifest


def _made_of(names: Sequence[str], stages: Mapping[str, Any]) -> list[str]:
    """These stages and all whose inputs hold the digest of one, directly or not, in order."""
    gone = set(names)
    while True:
        digests = {stages[name]["digest"] for name in gone}
        more = {name for name, record in stages.items() if digests & _texts(record.get("inputs"))}
        if more <= gone:
            return [name for name in stages if name in gone]
        gone |= more


def _texts(value: Any) -> set[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for each in inner for text in _texts(each)}


def _check(name: str, place: str, record: Mapping[str, Any], display: Progress) -> Checked:
    """All that can be known of one stage's files."""
    there = sizes_below(place)
    sizes = record.get("sizes") or there  # records of before have none
    faults = [masked(fault) for fault in misfits(place, record.get("sizes") or {})]
    rows, hashes = _told(name, place, record, faults)
    whole = [file for file, size in sizes.items() if there.get(file) == size]
    display.update("files", 0, len(whole))
    found: list[tuple[str, int]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def look(file: str) -> tuple[str, int]:
            return _look(f"{place}/{file}", sizes[file], hashes.get(file), rows.get(file))

        for each in pool.map(look, whole):
            found.append(each)
            display.update("files", len(found), len(whole))
    faults += [fault for fault, _ in found if fault]
    of = TABLES.get(stage_kind(name))
    total = sum(count for file, (_, count) in zip(whole, found, strict=True) if of in ("", file))
    if of is not None and not faults and total != record.get("rows"):
        faults.append(f"{masked(place)}/{of}: {total} rows, expected {record.get('rows')}")
    return Checked(name, len(sizes), sum(sizes.values()), tuple(faults))


def _told(
    name: str, place: str, record: Mapping[str, Any], faults: list[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Rows and SHA-256 of files, by the stage's record and the synthetic table's manifest."""
    rows: dict[str, int] = {}
    hashes: dict[str, str] = dict(record.get("sha256") or {})
    if stage_kind(name) != SHARDS:
        return rows, hashes
    try:
        manifest = shards.read_manifest(place) or {"shards": [], "rows": 0}
    except DataError as error:
        faults.append(str(error).partition(" Fix: ")[0])
        return rows, hashes
    for shard in manifest["shards"]:
        rows[shard["file"]] = shard["rows"]
        if shard["sha256"]:
            hashes.setdefault(shard["file"], shard["sha256"])
    if manifest["rows"] != record.get("rows"):
        faults.append(
            f"{masked(place)}: its manifest has {manifest['rows']} rows, expected "
            f"{record.get('rows')}"
        )
    return rows, hashes


def _look(path: str, size: int, sha256: str | None, rows: int | None) -> tuple[str, int]:
    """What is wrong with a file of the right size, "" for nothing; and the rows it holds."""
    try:
        if sha256 and (got := sha256_of(path, size)) != sha256:
            return f"{masked(path)}: its content has sha256 {got}, expected {sha256}", 0
        if path.endswith(".safetensors"):
            storage, name = open_storage(path)
            with storage.open(name, "rb") as file:
                fault = fault_of(file, size)
            return f"{masked(path)} {fault}" if fault else "", 0
        if not path.endswith(".parquet"):
            return "", 0
        folder = path.rpartition("/")[0]
        inside = [open_storage(path)[1]]
        if sha256:
            there = count_rows(folder, inside)
        else:  # the pages have checksums of their own
            there = sum(part.num_rows for part in read_parts(folder, files=inside))
    except DataError as error:
        return str(error).partition(" Fix: ")[0], 0
    except FileNotFoundError as error:
        return masked(f"{path}: cannot be read ({error})"), 0
    wrong = rows is not None and there != rows
    return f"{masked(path)}: {there} rows, expected {rows}" if wrong else "", there
