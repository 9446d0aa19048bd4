"""The stage of grouping with the given groups, and with a method of another package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysynth.config.files import load_config
from raysynth.datasets import captions, damage
from raysynth.errors import ConfigError, DataError
from raysynth.evaluation.results import read_truth
from raysynth.grouping.stage import run_grouping
from raysynth.groups.groups import Groups
from raysynth.planning.preflight import check_configuration
from raysynth.progress import Progress
from raysynth.storage.tables import (
    REAL,
    SPLITS,
    encode_png,
    groups_of,
    read_table,
    split_files,
    with_groups,
    write_table,
)

GIVEN = Groups(("cat", "dog"), ("day", "night", "dusk"), ("cat", "dog"), ("day", "night", "dusk"))
BRIGHTNESS = """
    import numpy as np

    from raysynth.grouping.method import Grouped, Method, attributes
    from raysynth.knobs import Section, knob
    from raysynth.storage.tables import decode_images

    class Knobs(Section):
        above: float = knob(127.0, "Mean level from which on an image is bright.")

    def group(images, knobs):
        ids, found = [], []
        for part in images.parts("id", "image"):
            ids += part["id"].to_pylist()
            levels = decode_images(part["image"]).mean(axis=(1, 2, 3))
            found += (levels > knobs.above).astype(int).tolist()
        return Grouped(("dark", "bright"), ("in the dark", "in the light"), attributes(ids, found))

    PART = Method("Brightness", "a test", group, Knobs{more})
"""


def write_real(folder: Path, groups: Groups = GIVEN, each: int = 4) -> str:
    """Two training files, validation and test; a row's level says neither label nor attribute."""
    schema = with_groups(REAL, groups)
    for split in SPLITS:
        rows = [
            {
                "id": f"{split}-{g}-{n}",
                "image": {"bytes": encode_png(np.full((4, 4, 3), 60 * n, np.uint8)), "path": None},
                "label": groups.label(g),
                "attribute": groups.attribute(g),
                "group": g,
                "split": split,
            }
            for g in range(groups.count)
            for n in range(each)
        ]
        half = len(rows) // 2 if split == "train" else len(rows)
        for number, part in enumerate(filter(None, (rows[:half], rows[half:]))):
            table = pa.Table.from_pylist(part, schema=schema)
            write_table(table, f"{folder}/{split}-{number:05d}.parquet")
    return str(folder)


def grouped(real: str, work: Path, *settings: str, groups: Groups = GIVEN) -> dict:
    return run_grouping(load_config(None, list(settings)), real, groups, str(work), Progress())


def test_the_given_groups_are_the_table_as_it_was(tmp_path):
    real, work = write_real(tmp_path / "real"), tmp_path / "work"
    facts = grouped(real, work)
    assert facts["groups"] == GIVEN.to_dict() == facts["measured"]
    assert facts["counts"] == dict.fromkeys(SPLITS, [4] * 6) and facts["rows"] == 72
    before, after = read_table(real), read_table(str(work))
    assert after.equals(before) and [f.name for f in work.iterdir()].sort() is None
    train = read_table(str(work), files=split_files(str(work), "train"))
    assert train.schema.metadata == before.schema.metadata


def test_what_lies_beside_the_table_goes_along(tmp_path):
    """Captions, and what is missing of damaged images, are read of the table that is trained on."""
    real, work = write_real(tmp_path / "real"), tmp_path / "work"
    config = load_config(None, ["dataset.path=x", "dataset.name=tree", "dataset.captions=txt"])
    ids = read_table(real, ["id"], files=split_files(real, "train"))["id"].to_pylist()
    said = {"id": ids, "caption": ["asleep"] * len(ids), "split": ["train"] * len(ids)}
    captions.keep(pa.table(said), real)
    hole = encode_png(np.zeros((4, 4), np.uint8))
    table = pa.table([[ids[0]], [hole], [3.0]], schema=damage.KEPT)
    with pa.ipc.new_file(f"{real}/train-00000{damage.ENDING}", damage.KEPT) as writer:
        writer.write_table(table)
    grouped(real, work)
    assert captions.read_captions(config.dataset, str(work)) == dict.fromkeys(ids, "asleep")
    assert damage.read_damage(str(work)) == {ids[0]: (hole, 3.0)} == damage.read_damage(real)


def test_found_groups_are_trained_on_and_the_given_ones_measured(tmp_path, add_part):
    add_part("raysynth.grouping.methods", "brightness", BRIGHTNESS.replace("{more}", ""))
    real, work = write_real(tmp_path / "real"), tmp_path / "work"
    asked = "grouping.method={name: brightness, above: 100}"
    facts = grouped(real, work, asked)
    found = Groups.from_dict(facts["groups"])
    assert found.names == ["cat/dark", "cat/bright", "dog/dark", "dog/bright"]
    assert found.attribute_words == ("in the dark", "in the light")
    assert found.found and not GIVEN.found
    assert facts["counts"] == {"train": [6] * 4, "validation": [6] * 4, "test": [4] * 6}
    assert facts["found"]["method"] == "brightness" and facts["found"]["known"] == 24
    assert facts["found"]["own"]["dog/dusk"] == {"dog/dark": 2, "dog/bright": 2}
    assert "confidence" not in facts["found"]  # it does not say how sure it is
    for split in ("train", "validation"):
        table = read_table(str(work), files=split_files(str(work), split))
        bright = np.array([int(i.rsplit("-")[-1]) for i in table["id"].to_pylist()]) > 1
        assert np.array_equal(table["attribute"].to_numpy(), bright)
        assert np.array_equal(table["group"].to_numpy(), 2 * table["label"].to_numpy() + bright)
        assert groups_of(table.schema) == found
        assert table.schema.field("attribute").type == pa.int64()
        assert b'"names": ["dark", "bright"]' in table.schema.metadata[b"huggingface"]
    truth = read_truth(str(work), np.array([6, 6, 6, 6]), found)
    assert truth.groups == GIVEN and truth.counts.tolist() == [4] * 6
    assert sorted(truth.group.tolist()) == sorted(list(range(6)) * 4)
    # The files that are there are not written again.
    known = {file: file.stat().st_mtime_ns for file in work.iterdir()}
    (work / "train-00001.parquet").unlink()
    assert grouped(real, work, asked) == facts
    changed = {f.name for f in work.iterdir() if known.get(f) != f.stat().st_mtime_ns}
    assert changed == {"train-00001.parquet"}


@pytest.mark.parametrize("case", ["the method says so", "the data set has none"])
def test_test_is_measured_in_found_groups(tmp_path, case, add_part):
    asked = "grouping.method={name: brightness, above: 100}"
    says = ", groups_test=True" if case == "the method says so" else ""
    add_part("raysynth.grouping.methods", "brightness", BRIGHTNESS.replace("{more}", says))
    one = Groups(("cat", "dog"), ("any",), ("cat", "dog"), ("any",))
    groups = GIVEN if says else one
    real, work = write_real(tmp_path / "real", groups), tmp_path / "work"
    facts = grouped(real, work, asked, groups=groups)
    assert len(facts["counts"]["test"]) == 4 and "measured" not in facts
    truth = read_truth(str(work), np.arange(4), Groups.from_dict(facts["groups"]))
    assert truth.groups.names == Groups.from_dict(facts["groups"]).names
    assert truth.counts.tolist() == [0, 1, 2, 3]


def test_what_a_method_gets_wrong_is_refused(tmp_path, add_part):
    text = BRIGHTNESS.replace("{more}", "")
    add_part("raysynth.grouping.methods", "brightness", text)
    lost = text.replace("attributes(ids, found)", "attributes(ids[1:], found[1:])")
    add_part("raysynth.grouping.methods", "lost", lost)
    three = text.replace("(levels > knobs.above)", "(1 + (levels > knobs.above))")
    add_part("raysynth.grouping.methods", "three", three)
    real = write_real(tmp_path / "real")
    with pytest.raises(DataError, match=r"method=lost: gave no attribute for 1 image.*train-0-0"):
        grouped(real, tmp_path / "work", "grouping.method=lost")
    with pytest.raises(DataError, match=r"method=three: gave the attribute 2; expected 0 to 1"):
        grouped(real, tmp_path / "work", "grouping.method=three")
    with pytest.raises(DataError, match=r"no train image in group\(s\) cat/bright, dog/bright"):
        grouped(real, tmp_path / "work", "grouping.method={name: brightness, above: 200}")
    with pytest.raises(ConfigError, match=r"grouping\.method.*expected one of"):
        load_config(None, ["grouping.method=bright"])


def test_a_method_is_a_digest_and_the_given_one_is_none(add_part):
    add_part("raysynth.grouping.methods", "brightness", BRIGHTNESS.replace("{more}", ""))
    given, found = (load_config(None, [f"grouping.method={m}"]) for m in ("given", "brightness"))
    assert given.digest() == load_config(None, []).digest() != found.digest()
    from raysynth.grouping.declared import GROUPING as STAGE

    assert not STAGE.where(given) and STAGE.where(found)
    more = load_config(None, ["grouping.method={name: brightness, above: 3}"])
    assert STAGE.decided_by(found) != STAGE.decided_by(more)


def test_given_groups_that_are_not_trained_on_are_not_counted_before_ray(add_part):
    add_part("raysynth.grouping.methods", "brightness", BRIGHTNESS.replace("{more}", ""))
    small = ["clustering.k=30", "dataset.severity=0.9", "dataset.train_images=160"]
    with pytest.raises(DataError, match="fewer training images than clusters"):
        check_configuration(load_config(None, small))
    check_configuration(load_config(None, [*small, "grouping.method=brightness"]))
