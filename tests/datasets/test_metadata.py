"""Metadata as it is written: text names, refused tables, messages of bounded length."""

from __future__ import annotations

import csv
import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysynth.datasets.layouts.folder import Folder
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.datasets.metadata import ordered, read_metadata
from raysynth.errors import DataError
from tests.datasets.test_folder import balanced_rows, config_for, write_folder

HEADER = ["file_name", "label", "attribute", "split"]


def rows_of(folder):
    with open(folder / "metadata.csv", newline="") as file:
        return list(csv.reader(file))


def read(folder):
    return read_metadata(str(folder), "metadata.parquet", ("label",), "the tree")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("007", "07"),
        ("01", "1"),
        ("1e3", "1000"),
        ("1.1", "1.10"),
        ("true", "false"),
        ("TRUE", "true"),
        ("0", "1.5"),
        ("nan", "inf"),
        ("-0", "0"),
        ("1_000", "1000"),
    ],
)
def test_names_are_as_they_are_written(tmp_path, one, two):
    folder = write_folder(tmp_path, balanced_rows((one, two)))
    words = f"dataset.label_words={{'{one}': coat, '{two}': bag}}"
    _, groups, _ = list_dataset(config_for(folder, words).dataset, seed=0)
    assert set(groups.label_names) == {one, two}
    assert set(groups.label_words) == {"coat", "bag"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "-1", "0"], ["-1", "0", "2", "10"]),
        (["10.0", "2.5", "1e-05"], ["1e-05", "2.5", "10.0"]),
        (["10", "2", "x"], ["10", "2", "x"]),
        (["10", "02"], ["02", "10"]),
        (["True", "False"], ["False", "True"]),
        (["b", "B", "a"], ["B", "a", "b"]),
    ],
)
def test_names_keep_the_order_they_had(names, expected):
    """As pandas had sorted them, where it printed what was written."""
    assert ordered(names) == expected


def test_a_column_of_numbers_and_a_word_is_read_at_any_length(tmp_path):
    """pandas guesses types by chunk: 202,599 rows are CelebA's size."""
    count = 202_599
    with open(tmp_path / "metadata.csv", "w") as file:
        file.write("file_name,label,attribute\n")
        for i in range(count):
            word = "unknown" if i > count - 20_000 and i % 3 == 0 else i // 2 % 2
            file.write(f"a/{i:06d}.jpg,{i % 2},{word}\n")
    folder = Folder(str(tmp_path))
    assert folder.label_names == ("0", "1")
    assert folder.attribute_names == ("0", "1", "unknown")


def test_digits_and_windows_paths_are_file_names(tmp_path):
    folder = write_folder(tmp_path, balanced_rows())
    rows = rows_of(folder)
    for number, row in enumerate(rows[1:]):
        (folder / row[0]).rename(folder / "images" / f"{number:05d}")
        row[0] = f"images\\{number:05d}"
    (folder / "images/00000").rename(folder / "00000")
    rows[1][0] = "00000"
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    names = Folder(str(folder)).listing()["id"].to_pylist()
    assert names[:2] == ["00000", "images/00001"]
    rows[1][0] = "..\\00000"
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(DataError, match="leaves the folder"):
        Folder(str(folder)).listing()


def test_parquet_columns_of_any_scalar_are_read_as_text(tmp_path):
    day = datetime.date(2026, 1, 2)
    columns = {
        "text": (pa.array(["01", "1", "x"]), ["01", "1", "x"]),
        "large": (pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"]),
        "integers": (pa.array([10, 2, 1], pa.int8()), ["10", "2", "1"]),
        "floats": (pa.array([10.0, 2.5, 1e-5]), ["10.0", "2.5", "1e-05"]),
        "bools": (pa.array([True, False, True]), ["True", "False", "True"]),
        "categories": (pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a", "b"]),
        "codes": (pa.array([3, 1, 3]).dictionary_encode(), ["3", "1", "3"]),
        "days": (pa.array([day] * 3), ["2026-01-02"] * 3),
        "missing": (pa.array([1, None, 3]), ["1", None, "3"]),
        "nothing": (pa.nulls(3), [None] * 3),
        "no number": (pa.array([0.5, np.nan, 1.0]), ["0.5", None, "1.0"]),
    }
    for values, expected in columns.values():
        pq.write_table(pa.table({"label": values}), tmp_path / "metadata.parquet")
        assert [None if pd.isna(x) else x for x in read(tmp_path)["label"]] == expected


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (pa.array([["a"], ["b"]]), "a list"),
        (pa.array([["a"], ["b"]], pa.large_list(pa.string())), "a list"),
        (pa.array([b"a", b"b"]), "bytes"),
        (pa.array([{"x": 1}, {"x": 2}]), "a struct"),
    ],
)
def test_parquet_columns_of_several_values_per_row_are_refused(tmp_path, values, got):
    pq.write_table(pa.table({"label": values}), tmp_path / "metadata.parquet")
    with pytest.raises(DataError, match=f"label: a text or a number per row expected, got {got}"):
        read(tmp_path)


def rewritten(folder, change):
    rows = rows_of(folder)
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(change(rows))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [rows[0], *([*row, "more"] for row in rows[1:])], "Expected 3 fields"),
        (lambda rows: [*rows[:5], [*rows[5], "more"], *rows[6:]], "Expected 3 fields .* saw 4"),
        (lambda rows: [[*row, row[1]] for row in rows], "column label is there twice"),
        (
            lambda rows: [[*rows[0], "split"], *([*row, "train"] for row in rows[1:])],
            r"no test images; got train\. Fix: call some of",
        ),
        (lambda rows: [[*rows[0], "split"], *([*row, ""] for row in rows[1:])], r"\(empty\) unk"),
        (lambda rows: [], "cannot be read as a table"),
        (lambda rows: [[f"column {i}" for i in range(5000)]], r"column\(s\) file_name, label"),
    ],
)
def test_tables_that_are_none_are_refused_in_a_few_words(tmp_path, change, said):
    folder = write_folder(tmp_path, balanced_rows())
    rewritten(folder, change)
    with pytest.raises(DataError, match=said) as refused:
        Folder(str(folder)).listing()
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.parquet"])
def test_a_folder_called_metadata_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=rf"{name}: a file was expected, got a folder"):
        Folder(str(tmp_path)).listing()


def test_a_continuous_attribute_is_refused_in_a_few_words(tmp_path):
    rows = [(f"images/{i}.png", "ab"[i % 2], str(i / 7)) for i in range(400)]
    with pytest.raises(DataError, match=r"attribute: 400 different values in 400 rows") as refused:
        list_dataset(config_for(write_folder(tmp_path, rows)).dataset, 0)
    assert "ranges" in str(refused.value) and len(str(refused.value)) < 1000


def test_groups_of_long_names_are_refused_in_a_few_words(tmp_path):
    rows = [(f"images/{i}.png", f"{i % 15:060d}", f"{i % 15:060d}") for i in range(300)]
    with pytest.raises(DataError, match="no train image in group") as refused:
        list_dataset(config_for(write_folder(tmp_path, rows)).dataset, 0)
    assert len(str(refused.value)) < 1200


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, bom):
    folder = write_folder(tmp_path, balanced_rows())
    text = (folder / "metadata.csv").read_text()
    (folder / "metadata.csv").write_text(bom + text)
    assert len(Folder(str(folder)).listing()) == 80


@pytest.mark.parametrize(
    ("labels", "attributes", "said"),
    [
        (("coat",), ("day", "night"), "one label only .coat., which is nothing to tell apart"),
        (("coat", "bag"), ("day",), "one attribute only .day."),
        (("a", "a/b"), ("c", "b/c"), "two groups .* are both called a/b/c"),
        (("a", "b\nc"), ("d", "e"), r"label name 'b\\nc'; expected 1 to 100 characters"),
        (("a", "b"), ("d", "x" * 101), "attribute name 'xxx"),
        (("a", "b"), ("d", "  "), "attribute name '  '"),
        (("a", "b\x1b[2J"), ("d", "e"), r"label name 'b\\x1b"),
    ],
)
def test_names_that_cannot_be_told_apart_or_shown_are_refused(tmp_path, labels, attributes, said):
    (tmp_path / "images").mkdir()
    rows = []
    for label in labels:
        for attribute in attributes:
            for _ in range(20):
                rows.append((f"images/{len(rows)}.png", label, attribute))
                Image.new("RGB", (8, 8)).save(tmp_path / rows[-1][0])
    with open(tmp_path / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([HEADER[:3], *rows])
    with pytest.raises(DataError, match=said):
        list_dataset(config_for(tmp_path).dataset, seed=0)


def test_small_groups_get_two_images_of_each_split_and_one_is_refused(tmp_path):
    folder = write_folder(tmp_path / "shares", balanced_rows(each=12))
    _, groups, listing = list_dataset(config_for(folder).dataset, seed=0)
    assert split_counts(listing, groups)["validation"].tolist() == [2] * 4
    splits = ("train", "train", "test", "test", "validation")
    rows = [(*row, splits[i % 5]) for i, row in enumerate(balanced_rows(each=5))]
    with pytest.raises(DataError, match=r"fewer than 2 validation .* got cat/day: 1.*_share"):
        list_dataset(config_for(write_folder(tmp_path / "one", rows)).dataset, seed=0)


def test_validation_is_cut_from_train_where_a_split_names_none(tmp_path):
    rows = [(*row, "test" if i % 2 else "train") for i, row in enumerate(balanced_rows(each=20))]
    _, groups, listing = list_dataset(config_for(write_folder(tmp_path, rows)).dataset, seed=0)
    counts = split_counts(listing, groups)
    assert counts["train"].tolist() == [8] * 4 and counts["validation"].tolist() == [2] * 4
    assert counts["test"].tolist() == [10] * 4
