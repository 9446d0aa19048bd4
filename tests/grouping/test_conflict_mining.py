"""conflict_mining from images to groups: a real table, a real network, a real CLIP, real Ray."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset
from raysynth.errors import ConfigError, DataError
from raysynth.evaluation.results import read_truth
from raysynth.grouping.found import FOUND, FOUND_FILE
from raysynth.grouping.stage import run_grouping
from raysynth.groups.groups import Groups
from raysynth.planning.preflight import check_configuration
from raysynth.progress import Progress
from raysynth.storage.tables import IMAGE, REAL, read_table, split_files, with_groups, write_table

SMALL = (
    "dataset.attributes=unknown",
    "dataset.severity=0.9",
    "dataset.train_images=400",
    "dataset.validation_images=40",
    "dataset.test_images=40",
    "classifier.widths=[8, 16]",
    "grouping.method={name: conflict_mining, steps: 60, most: 0.4}",
)


def write_outfits(folder, config, hidden=()):
    """The real table of outfits; `hidden`: splits whose attributes are not known."""
    import pyarrow as pa

    data, groups, listing = list_dataset(config.dataset, config.seed)
    for split in ("train", "validation", "test"):
        rows = listing.filter(pc.equal(listing["split"], split))
        images = [{"bytes": png, "path": None} for png in data.images(rows)]
        table = rows.append_column("image", pa.array(images, IMAGE)).select(REAL.names)
        if split in hidden:
            for name in ("attribute", "group"):
                none = pa.array(np.full(len(rows), -1))
                table = table.set_column(table.column_names.index(name), name, none)
        table = table.cast(pa.schema(REAL)).replace_schema_metadata(
            with_groups(REAL, groups).metadata
        )
        write_table(table, f"{folder}/{split}-00000.parquet")
    return groups


@pytest.fixture(scope="module")
def outfits(tmp_path_factory, ray_local):
    """The real table, the grouped one, its facts and the data set's groups."""
    folder = tmp_path_factory.mktemp("mining")
    config = load_config(None, list(SMALL))
    groups = write_outfits(folder / "real", config)
    facts = run_grouping(config, f"{folder}/real", groups, f"{folder}/work", Progress())
    return folder, config, groups, facts


def test_the_grounds_are_found_and_named_without_an_attribute_label(outfits):
    folder, _, groups, facts = outfits
    found = Groups.from_dict(facts["groups"])
    assert found.attribute_names == ("grass", "gravel") and found.found
    assert facts["found"]["method"] == "conflict_mining"
    assert facts["found"]["aligned"] == {"pullover": "grass", "coat": "gravel"}
    own = facts["found"]["own"]
    assert facts["found"]["known"] == 400 and sum(map(sum, map(dict.values, own.values()))) == 400
    for name in ("pullover/gravel", "coat/grass"):  # 20 images each
        assert own[name].get(name, 0) >= 18, own
    work = f"{folder}/work"
    truth = read_truth(work, np.array(facts["counts"]["train"]), found)
    assert truth.groups == groups and not truth.groups.found
    assert truth.counts.tolist() == [180, 20, 20, 180]


def test_how_sure_it_is_lies_beside_the_table(outfits):
    folder, _, _, facts = outfits
    table = read_table(f"{folder}/work", files=[f"{folder}/work/{FOUND_FILE}"])
    assert table.schema.equals(FOUND) and len(table) == 440
    posterior = np.array(table["posterior"].to_pylist())
    assert np.allclose(posterior.sum(axis=1), 1, atol=1e-5) and (posterior >= 0).all()
    attribute = table["attribute"].to_numpy()
    confidence = table["confidence"].to_numpy()
    assert np.allclose(confidence, posterior[np.arange(440), attribute])
    train = read_table(f"{folder}/work", ["id", "group"], split_files(f"{folder}/work", "train"))
    group = dict(zip(train["id"].to_pylist(), train["group"].to_pylist(), strict=True))
    rows = [row for row in table.to_pylist() if row["split"] == "train"]
    assert [row["group"] for row in rows] == [group[row["id"]] for row in rows]
    of_group = [row["confidence"] for row in rows if row["group"] == 0]
    assert facts["found"]["confidence"]["pullover/grass"] == pytest.approx(
        np.mean(of_group), abs=1e-4
    )


def test_attributes_that_are_not_known_decide_nothing(outfits, tmp_path, ray_local):
    folder, config, groups, facts = outfits
    write_outfits(tmp_path / "real", config, hidden=("train", "validation"))
    again = run_grouping(config, f"{tmp_path}/real", groups, f"{tmp_path}/work", Progress())
    assert again["counts"]["train"] == facts["counts"]["train"]
    assert "own" not in again["found"] and again["measured"] == groups.to_dict()
    truth = read_truth(f"{tmp_path}/work", np.ones(4, np.int64), groups)
    assert truth.groups == groups and truth.counts.tolist() == [1] * 4  # shares are not known
    for split in ("train", "validation"):
        one, other = (
            read_table(str(at), ["id", "group"], split_files(str(at), split))
            for at in (folder / "work", tmp_path / "work")
        )
        assert one.equals(other)


def test_groups_of_test_are_inferred_where_they_are_not_known(outfits, tmp_path, ray_local):
    _, config, groups, facts = outfits
    write_outfits(tmp_path / "real", config, hidden=("train", "validation", "test"))
    again = run_grouping(config, f"{tmp_path}/real", groups, f"{tmp_path}/work", Progress())
    assert "measured" not in again and sum(again["counts"]["test"]) == 40
    truth = read_truth(f"{tmp_path}/work", np.array(facts["counts"]["train"]), groups)
    found = Groups.from_dict(again["groups"])
    table = read_table(f"{tmp_path}/work", files=split_files(f"{tmp_path}/work", "test"))
    assert found.found and truth.ids == table["id"].to_pylist()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        (["base.clip=openai/clip-vit-base-patch32"], ConfigError, "no vocabulary, .*Fix: groupin"),
        (["prompts.template=a photo of a {label}"], ConfigError, "has no {attribute}.*Fix: prom"),
        (
            ["grouping.method={name: conflict_mining, least: 101}"],
            DataError,
            r"fewer than 202 training images of a class \(pullover: 200, coat: 200\)",
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused_before_ray(settings, error, said):
    config = load_config(None, [*SMALL[:-1], "generator=vanilla", *settings])
    with pytest.raises(error, match=said):
        check_configuration(config)


@pytest.mark.parametrize("words", ["[grass]", "[grass, grass]", "[]"])
def test_a_vocabulary_has_two_words(words):
    with pytest.raises(ConfigError, match="two or more different words"):
        load_config(None, [f"grouping.method={{name: conflict_mining, vocabulary: {words}}}"])
