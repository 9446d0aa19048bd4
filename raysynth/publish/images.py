"""`raysynth export images`: a run's images as a data set of another tool, streamed, to any storage.

A shard of the run is read at a time and becomes one piece. A small note, written after the files of
a piece, says that they are there: the same command goes on where it was cut off. The card is
written last, and the notes go.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from raysynth.config.config import Config
from raysynth.errors import ConfigError
from raysynth.finished import read_made
from raysynth.groups.groups import Groups
from raysynth.progress import Progress
from raysynth.publish.data_card import Counts, data_card
from raysynth.publish.form import FORMS, Form, Piece
from raysynth.publish.rows import STAGES, WHICH, Sign, Source, rows_of
from raysynth.storage.files import (
    make_folder,
    open_storage,
    read_json,
    remove,
    sizes_below,
    write_atomic,
)
from raysynth.storage.tables import read_parts, schema_of, to_parquet
from raysynth.terminal import clipped, masked

NOTES = ".export"
"""Folder of what is known of an export that is not through."""
ASKED, INDEX, CARD = "asked.json", "metadata.parquet", "README.md"
WRITERS = 16
"""Files that are written at the same time: an object store takes its time for each."""
DEFAULT = "parquet"


def export_images(
    config: Config,
    folder: str,
    display: Progress,
    which: str = "kept",
    form: str = DEFAULT,
    sign: Sign | None = None,
) -> str:
    """Write a run's images to a new or empty folder or URI, or go on; says what was written.

    Parameters
    ----------
    config : the run's, or its name and storage only.
    which : a key of `rows.WHICH`.
    form : a name of FORMS.
    sign : signs generated images (`signed.signer`); None: they are marked, and not signed.

    Raises
    ------
    ConfigError
        No such form; no finished run of these settings; a folder with something else in it.
    DataError
        The run's tables are not what they were.
    """
    _check(which, form)
    made = read_made(config, "selection", STAGES)
    digests = {name: record["digest"] for name, record in made.records.items()}
    asked = {"of": which, "form": form, "signed": sign is not None, "stages": digests}
    target = Target(folder, FORMS[form], _notes(folder, asked))
    rows = rows_of(made, which, sign)
    display.stage("export")
    counts = write_pieces(target, rows, display)
    card = data_card(made, rows, form, counts)
    write_atomic(f"{folder}/{CARD}", str(card).encode())
    remove(f"{folder}/{NOTES}")
    many = sum(counts.total.values())
    return f"{many:,} images ({WHICH[which]}) as {target.form.title}: {masked(folder)}"


def _check(which: str, form: str) -> None:
    if form not in FORMS:
        raise ConfigError(f"--form: {FORMS.unknown(form)}. Fix: one of these")
    if which not in WHICH:
        raise ConfigError(
            f"--of: got {clipped(which)!r}; expected one of {', '.join(WHICH)}. Fix: one of these"
        )


def _notes(folder: str, asked: Mapping[str, Any]) -> set[str]:
    """Names of the notes that an export of the same left; refuses a folder with anything else."""
    there = sizes_below(folder)
    place = f"{folder}/{NOTES}/{ASKED}"
    if there and read_json(place) != asked:
        raise ConfigError(
            f"--to: {masked(folder)} is not empty, and not what the same export left that was cut "
            "off; expected a new or empty folder. Fix: another one"
        )
    if not there:
        write_atomic(place, json.dumps(asked).encode())
    return notes_among(there)


def notes_among(files: Iterable[str]) -> set[str]:
    """Names of the notes among the files of an export's folder."""
    return {name.removeprefix(f"{NOTES}/") for name in files if name.startswith(f"{NOTES}/")}


class Pieces(Protocol):
    """Images that are exported, a file of theirs at a time."""

    @property
    def sources(self) -> Sequence[Source]:
        """The files that hold them, those of a split one after the other."""

    @property
    def groups(self) -> Groups:
        """Of the images."""

    def read(self, source: Source) -> pa.Table:
        """The rows of a file, see `form.Piece`."""


@dataclass(frozen=True)
class Target:
    """Where an export goes to, and what is there of it."""

    folder: str
    form: Form
    notes: set[str]

    def counts(self, name: str) -> dict[str, int] | None:
        """Images of each group of a piece that is there; None: it is not."""
        place = f"{self.folder}/{NOTES}/{name}.json"
        return read_json(place) if f"{name}.json" in self.notes else None

    def put(self, piece: Piece, name: str, writers: ThreadPoolExecutor) -> dict[str, int]:
        """Write a piece, and then its notes; images of each group (none: nor are there files)."""
        files = self.form.files(piece) if piece.rows.num_rows else {}
        paths = [f"{self.folder}/{file}" for file in files]
        for _ in writers.map(write_atomic, paths, files.values()):
            pass
        if self.form.note and files:
            note = to_parquet(self.form.note(piece))
            write_atomic(f"{self.folder}/{NOTES}/{name}.parquet", note)
        found = _counted(piece)
        write_atomic(f"{self.folder}/{NOTES}/{name}.json", json.dumps(found).encode())
        return found

    def put_index(self, split: str, names: list[str]) -> None:
        """The notes of a split's pieces as one table, by way of this machine's disk."""
        notes = [f"{self.folder}/{NOTES}/{name}.parquet" for name in names]
        with tempfile.TemporaryDirectory() as local:
            path = os.path.join(local, INDEX)
            with pq.ParquetWriter(path, schema_of(notes[0]), compression="zstd") as whole:
                for part in read_parts(self.folder, files=notes):
                    whole.write_table(part)
            make_folder(f"{self.folder}/{split}")
            storage, to = open_storage(f"{self.folder}/{split}/{INDEX}")
            storage.put_file(path, to)


def _counted(piece: Piece) -> dict[str, int]:
    return {str(group): many for group, many in Counter(piece.rows["group"].to_pylist()).items()}


def write_pieces(target: Target, rows: Pieces, display: Progress) -> Counts:
    """Every piece that is not there yet, then the index of each split."""
    make_folder(target.folder)
    counts, numbers = Counts(), Counter[str]()
    done: dict[str, list[str]] = {}
    with ThreadPoolExecutor(WRITERS) as writers:
        for number, source in enumerate(rows.sources):
            display.update("files", number, len(rows.sources))
            place = numbers[source.split]
            numbers[source.split] += 1
            name = f"{source.split}-{place:06d}"
            found = target.counts(name)
            if found is None:
                piece = Piece(rows.read(source), place, rows.groups)
                found = target.put(piece, name, writers)
            if found:
                done.setdefault(source.split, []).append(name)
                counts.add(source.split, found, generated=source.shard is not None)
    display.update("files", len(rows.sources), len(rows.sources))
    if target.form.note:
        for split, pieces in done.items():
            target.put_index(split, pieces)
    return counts
