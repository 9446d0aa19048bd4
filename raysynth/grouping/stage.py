"""The stage of grouping: the real table again, with the attributes that a method finds.

Training and validation images get the found attributes, so that generators, selection and every
choice by worst-group accuracy see these alone. Test images keep the data set's own attributes where
it has two or more and they are known of each (unless the method says otherwise): the worst group
that is reported is then one of the groups that a user named, not one that the method drew. Else
test too is measured in the found groups, and all that tells of it says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysynth.datasets import captions, damage
from raysynth.errors import DataError
from raysynth.grouping.found import FOUND_FILE, compared, known_test, write_found
from raysynth.grouping.method import POSTERIOR, Grouped, Ungrouped
from raysynth.grouping.settings import GIVEN, GROUPING, GroupingConfig
from raysynth.groups.groups import Groups, check_names, group_counts, require_splits
from raysynth.knobs import Sections
from raysynth.progress import Progress
from raysynth.stages.stage import Work
from raysynth.storage.files import exists
from raysynth.storage.tables import (
    REAL,
    SPLITS,
    read_table,
    split_files,
    with_groups,
    with_train_counts,
    write_table,
)
from raysynth.terminal import clipped

OWN = ("train", "validation")
"""Splits that a method groups in any case."""


def run_grouping(
    config: Sections, real: str, groups: Groups, work: str, progress: Progress
) -> dict[str, Any]:
    """Write the real table below `real` to `work` with `attribute` and `group` of the method.

    File by file, under the same names; files that are there are not made again. A method that knows
    how sure it is leaves groups.parquet too (`found.FOUND`). `groups`: the data set's own.

    Returns
    -------
    Facts: `rows`; `groups`: the found ones; `counts` per split and group, of test in the groups it
    is measured in; `measured`: these groups, where they are the data set's own; `found`: the
    method, what it says, and how its groups lie to the data set's own (`found.compared`).

    Raises
    ------
    DataError
        An image is left out, an attribute cannot be spoken, or a group has too few images.
    """
    chosen = config[GroupingConfig].method
    keeps_test = not GROUPING[chosen.name].groups_test and known_test(real, groups)
    splits = OWN if keeps_test else SPLITS
    progress.update("attributes found")
    images = Ungrouped(real, groups, splits, config.seed, config, progress)
    grouped: Grouped = GROUPING[chosen.name].group(images, chosen.knobs(GROUPING))
    found = _found(grouped, groups, chosen.name != GIVEN)
    attribute = _Attributes(grouped, f"grouping.method={chosen.name}")
    counts = _regroup(real, groups, found, attribute, splits, work)
    require_splits({split: counts[split] for split in splits}, found)
    said = {"method": chosen.name, **compared(real, groups, found, attribute.of), **grouped.facts}
    said |= _sure(grouped, real, splits, found, work)
    progress.say(f"  groups of the training images: {_sizes(found, counts['train'])}")
    _take_along(real, work)
    return {
        "rows": int(sum(each.sum() for each in counts.values())),
        "groups": found.to_dict(),
        "counts": {split: counts[split].tolist() for split in SPLITS},
        **({"measured": groups.to_dict()} if keeps_test else {}),
        "found": said,
    }


def _take_along(real: str, work: str) -> None:
    """What lies beside the table, of the same images."""
    for beside in (captions, damage):
        beside.carry(real, work)


def _found(grouped: Grouped, groups: Groups, found: bool) -> Groups:
    """The data set's labels with the attributes that were found."""
    names = (groups.label_names, grouped.names, groups.label_words, grouped.words)
    own = grouped.names == groups.attribute_names
    made = Groups(*names, aligned=groups.aligned if own else (), found=found)
    check_names(made)
    return made


def _sizes(groups: Groups, counts: np.ndarray) -> str:
    """Groups with their images, [G], as a message lists them."""
    return ", ".join(f"{name} {n:,}" for name, n in zip(groups.names, counts, strict=True))


def _sure(
    grouped: Grouped, real: str, splits: Sequence[str], found: Groups, work: str
) -> dict[str, Any]:
    """How sure the method is: of every image in a table, in short as facts; nothing: it is mute."""
    if POSTERIOR not in grouped.rows.column_names:
        return {}
    return write_found(f"{work}/{FOUND_FILE}", real, splits, grouped.rows, found)


def _regroup(
    real: str,
    groups: Groups,
    found: Groups,
    attribute: _Attributes,
    splits: Sequence[str],
    work: str,
) -> dict[str, np.ndarray]:
    """Write the tables, those of `splits` in the found groups; split -> images per group."""
    counts: dict[str, np.ndarray] = {}
    given = np.zeros(groups.count, np.int64)
    for split, file, table in _files(real):
        if split in splits:
            regrouped = _with_attributes(table, attribute.of(table["id"]), found)
            if split == "train":
                given += group_counts(table["group"].to_numpy(), groups.count)
        else:  # last: all training files are counted
            regrouped = table.select(REAL.names).cast(REAL)
            # Shares of training are not known: 1 for each group, the average over groups.
            known = given.sum() == counts["train"].sum()
            schema = with_train_counts(
                with_groups(REAL, groups), given if known else np.ones_like(given)
            )
            regrouped = regrouped.replace_schema_metadata(schema.metadata)
        many = (found if split in splits else groups).count
        new = np.bincount(regrouped["group"].to_numpy(), minlength=many)
        counts[split] = counts.get(split, 0) + new
        if not exists(f"{work}/{file}"):
            write_table(regrouped, f"{work}/{file}")
    return counts


def _files(real: str) -> Iterator[tuple[str, str, pa.Table]]:
    """Split, file's name and rows of the real table's files, test last."""
    for split in SPLITS:
        for path in split_files(real, split):
            yield split, path.rsplit("/", 1)[-1], read_table(real, files=[path])


def _with_attributes(table: pa.Table, attribute: np.ndarray, groups: Groups) -> pa.Table:
    """The rows with another attribute, [N], and the group that follows from it."""
    group = table["label"].to_numpy() * len(groups.attribute_names) + attribute
    columns = {name: table[name] for name in REAL.names}
    columns |= {"attribute": pa.array(attribute), "group": pa.array(group)}
    typed = [columns[field.name].cast(field.type) for field in REAL]
    return pa.table(typed, schema=with_groups(REAL, groups))


class _Attributes:
    """The attribute of an image by its id."""

    def __init__(self, grouped: Grouped, who: str) -> None:
        self._who = who
        self._ids = grouped.rows["id"].combine_chunks()
        self._found = grouped.rows["attribute"].to_numpy()
        among = np.arange(len(grouped.names))
        if not np.isin(self._found, among).all():
            wrong = self._found[~np.isin(self._found, among)][0]
            raise DataError(
                f"{who}: gave the attribute {clipped(str(wrong))}; expected 0 to {len(among) - 1}, "
                "the indices of its names. Fix: mend the method"
            )

    def of(self, ids: pa.ChunkedArray) -> np.ndarray:
        """[N] attributes of these images."""
        places = pc.index_in(ids, value_set=self._ids)
        if places.null_count:
            first = ids.filter(pc.is_null(places))[0].as_py()
            raise DataError(
                f"{self._who}: gave no attribute for {places.null_count} image(s), e.g. "
                f"{clipped(first)}; expected one for each of the splits it is asked for. Fix: mend "
                "the method"
            )
        return np.asarray(self._found[places.to_numpy()])


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_grouping`."""
    real = work.path("ingest")
    return run_grouping(work.config, real, work.groups, work.folder, work.progress)
