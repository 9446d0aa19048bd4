"""Captions: where layouts find them, what is refused, what is kept beside the real table."""

from __future__ import annotations

import re

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from raysynth.config.files import load_config
from raysynth.datasets.captions import FILE, caption_counts, carry, keep, read_captions
from raysynth.datasets.ingest import ingest
from raysynth.datasets.listing import list_dataset
from raysynth.errors import ConfigError, DamagedError, DataError
from raysynth.progress import Progress
from raysynth.storage.tables import REAL, read_table
from tests.datasets import test_hub as hub
from tests.datasets.test_folder import balanced_rows, config_for, write_folder
from tests.datasets.trees import write_tree

LEAVES = {f"{y}/{a}": 20 for y in ("cat", "dog") for a in ("day", "night")}


def listed(config):
    return list_dataset(config.dataset, 0)[2]


def with_column(folder, captions, name="text"):
    """A folder whose metadata has captions of its rows in turn."""
    file = next(folder.glob("metadata.*"))
    frame = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    frame[name] = [captions[n % len(captions)] for n in range(len(frame))]
    frame.to_csv(file, index=False) if file.suffix == ".csv" else frame.to_parquet(file)
    return folder


@pytest.mark.parametrize("parquet", [False, True])
def test_a_folder_names_the_column(tmp_path, parquet):
    folder = write_folder(tmp_path, balanced_rows(), parquet=parquet)
    with_column(folder, ["a small\n  one", None, "3"])
    listing = listed(config_for(folder, "dataset.captions=text"))
    said = dict(zip(listing["id"].to_pylist(), listing["caption"].to_pylist(), strict=True))
    assert [said[f"images/cat-day-{n}.png"] for n in range(3)] == ["a small one", "", "3"]
    plain = listed(config_for(folder))
    assert plain.equals(listing.drop_columns(["caption"])), "nothing else is different"


def test_captions_stay_with_their_images_at_a_severity(tmp_path):
    folder = write_folder(tmp_path, balanced_rows(each=40))
    file = folder / "metadata.csv"
    frame = pd.read_csv(file)
    frame.assign(text=[f"of {name}" for name in frame["file_name"]]).to_csv(file, index=False)
    listing = listed(config_for(folder, "dataset.captions=text", "dataset.severity=0.9"))
    assert listing["caption"].to_pylist() == [f"of {name}" for name in listing["id"].to_pylist()]


def test_a_tree_has_texts_beside_its_images(tmp_path):
    folder = write_tree(tmp_path, LEAVES)
    (folder / "cat/day/000.txt").write_text("asleep\non a sofa")
    (folder / "cat/day/001.txt").write_text("  \n")
    (folder / "cat/day/notes.txt").write_text("of nobody")
    (folder / "dog/day/000.png").rename(folder / "dog/day/000.gif.png")
    (folder / "dog/day/000.gif.txt").write_text("barks")
    config = load_config(
        None, ["dataset.name=tree", f"dataset.path={folder}", "dataset.captions=txt"]
    )
    listing = listed(config)
    said = dict(zip(listing["id"].to_pylist(), listing["caption"].to_pylist(), strict=True))
    assert {k: v for k, v in said.items() if v} == {
        "cat/day/000.png": "asleep on a sofa",
        "dog/day/000.gif.png": "barks",
    }


def test_a_hub_data_set_names_the_column(tmp_path):
    file = tmp_path / "data/part-00000.parquet"
    hub.write_file(file, 20)
    table = pq.read_table(file)
    said = [f"number {n}" if n % 2 else None for n in range(len(table))]
    pq.write_table(table.append_column("text", [said]), file)
    listing = listed(hub.config_for(tmp_path, "dataset.captions=text"))
    for row in listing.to_pylist():
        number = int(row["id"].rpartition("#")[2])
        assert row["caption"] == (f"number {number}" if number % 2 else "")
    with pytest.raises(DataError, match="no column words; got image, species, place and 1 more"):
        listed(hub.config_for(tmp_path, "dataset.captions=words"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["dataset.captions=text"], "dataset.name=outfits has no captions; expected one of folder"),
        (["dataset.name=celeba", "dataset.path=x", "dataset.captions=text"], "name=celeba has no"),
        (["dataset.name=tree", "dataset.path=x", "dataset.captions=text"], "captions=txt"),
        (["dataset.name=folder", "dataset.path=x", "dataset.captions=label"], "something else"),
        (
            ["dataset.name=hub", "dataset.path=x", "dataset.label=text", "dataset.captions=text"],
            "something else",
        ),
    ],
)
def test_what_has_no_captions_is_refused_before_anything_is_read(settings, said):
    with pytest.raises((ConfigError, ValidationError), match=re.escape(said)) as refused:
        load_config(None, settings)
    assert "Fix: " in str(refused.value)


@pytest.mark.parametrize(
    ("captions", "name", "said"),
    [
        (["x"], "words", r"column\(s\) text missing; got .*words.*Fix: rename"),
        (["", None], "text", "none of the 56 training images .* has a caption.*Fix: name"),
        (["word " * 3000], "text", "14,999 characters; expected a caption of at most 10,000"),
    ],
)
def test_captions_that_cannot_be_meant_are_refused(tmp_path, captions, name, said):
    folder = with_column(write_folder(tmp_path, balanced_rows()), captions, name)
    with pytest.raises(DataError, match=re.compile(said, re.DOTALL)):
        listed(config_for(folder, "dataset.captions=text"))


def test_a_text_that_is_none_is_named(tmp_path):
    folder = write_tree(tmp_path, LEAVES)
    (folder / "cat/day/000.txt").write_bytes(b"\xff\xfe\x00")
    settings = ["dataset.name=tree", f"dataset.path={folder}", "dataset.captions=txt"]
    with pytest.raises(DataError, match=r"000\.txt: no UTF-8 text"):
        listed(load_config(None, settings))


def test_what_is_kept_is_of_training_images_and_read_by_those_who_ask(tmp_path):
    folder = with_column(write_folder(tmp_path / "data", balanced_rows()), ["one", ""])
    asked, plain = config_for(folder, "dataset.captions=text"), config_for(folder)
    listing = listed(asked)
    real, regrouped = str(tmp_path / "real"), str(tmp_path / "regrouped")
    for each in (real, regrouped):
        (tmp_path / each).mkdir()
    keep(listing, real)
    rows = [row for row in listing.to_pylist() if row["split"] == "train" and row["caption"]]
    found = read_captions(asked.dataset, real)
    assert found == {row["id"]: "one" for row in rows} and len(rows) == caption_counts(listing)[0]
    assert read_captions(plain.dataset, real) == {}
    carry(real, regrouped)
    assert read_captions(asked.dataset, regrouped) == found
    (tmp_path / "regrouped" / FILE).write_bytes(b"cut")
    with pytest.raises(DamagedError, match="Fix: run again"):
        read_captions(asked.dataset, regrouped)
    carry(str(tmp_path / "data"), regrouped)  # has none


def test_ingest_leaves_them_beside_the_real_table(ray_local, tmp_path):
    folder = with_column(write_folder(tmp_path / "data", balanced_rows()), ["one", ""])
    asked = config_for(folder, "dataset.captions=text")
    facts = ingest(asked.dataset, 0, str(tmp_path / "with"), Progress())
    plain = ingest(config_for(folder).dataset, 0, str(tmp_path / "without"), Progress())
    assert facts.pop("captions") == len(read_captions(asked.dataset, str(tmp_path / "with"))) > 0
    assert facts == plain
    tables = [read_table(str(tmp_path / name)) for name in ("with", "without")]
    assert tables[0].equals(tables[1]) and tables[0].schema.names == REAL.names
    assert not (tmp_path / "without" / FILE).exists()
