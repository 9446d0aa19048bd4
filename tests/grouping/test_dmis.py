"""dmis from images to groups: a real table, the real base, its refusals; once with real Ray."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset
from raysynth.errors import ConfigError, DataError
from raysynth.grouping import generative
from raysynth.grouping.found import FOUND, FOUND_FILE
from raysynth.grouping.generative import Asked, Model, fit, inferred, read_latents
from raysynth.grouping.methods.dmis import PART, DmisKnobs
from raysynth.grouping.mixture import TEMPERATURES
from raysynth.grouping.stage import run_grouping
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.planning.preflight import check_configuration, grouping_warnings
from raysynth.progress import Progress
from raysynth.storage.tables import (
    IMAGE,
    REAL,
    SPLITS,
    read_table,
    split_files,
    with_groups,
    write_table,
)

SMALL = (
    "dataset.hidden_attributes=0.75",
    "dataset.severity=0.8",
    "dataset.train_images=80",
    "dataset.validation_images=16",
    "dataset.test_images=16",
    "grouping.method={name: dmis, steps: 4, batch_size: 8}",
)


def write_outfits(folder, config, hidden=()):
    """The real table of outfits, and id -> true attribute; `hidden`: ids that lose theirs too."""
    data, groups, listing = list_dataset(config.dataset, config.seed)
    truth = dict(zip(listing["id"].to_pylist(), listing["ground"].to_pylist(), strict=True))
    gone = pc.is_in(listing["id"], value_set=pa.array(hidden, pa.string()))
    for name in ("attribute", "group"):
        values = pc.if_else(gone, UNKNOWN, listing[name])
        listing = listing.set_column(listing.column_names.index(name), name, values)
    images = [{"bytes": png, "path": None} for png in data.images(listing)]
    table = listing.append_column("image", pa.array(images, IMAGE)).select(REAL.names)
    for split in SPLITS:
        part = table.filter(pc.equal(table["split"], split)).cast(with_groups(REAL, groups))
        write_table(part, f"{folder}/{split}-00000.parquet")
    return groups, truth


def asked_of(real, groups, config, **knobs):
    given = DmisKnobs(**{"steps": 4, "batch_size": 8} | knobs).settled()
    told = (config.base, config.prompts, given, config.seed)
    return Asked(str(real), groups, ("train", "validation"), *told)


@pytest.fixture(scope="module")
def outfits(tmp_path_factory):
    """Folder, configuration, groups and truth of 80 training images, 20 of them known."""
    folder = tmp_path_factory.mktemp("dmis") / "real"
    config = load_config(None, list(SMALL))
    lost = write_outfits(folder, config)[1]
    own = sorted(name for name in lost if name in _ids(folder, "validation"))[:3]
    return folder, config, *write_outfits(folder, config, own)


def _ids(folder, split):
    return read_table(str(folder), ["id"], split_files(str(folder), split))["id"].to_pylist()


def test_what_is_not_known_is_inferred_and_nothing_else(outfits):
    folder, config, groups, truth = outfits
    found = inferred(asked_of(folder, groups, config), 1.0)
    table = read_table(str(folder), ["id", "attribute", "split"])
    unknown = table.filter(pc.equal(table["attribute"], UNKNOWN))
    assert sorted(found.ids) == sorted(unknown["id"].to_pylist())
    assert found.counts == {"train": 60, "validation": 3}
    assert np.allclose(found.posterior.sum(1), 1, atol=1e-5)
    right = found.posterior.argmax(1) == [truth[name] for name in found.ids]
    assert right.mean() >= 0.9  # the base knows both words
    assert found.temperature in TEMPERATURES


@pytest.fixture(scope="module")
def in_training(outfits):
    """The base that is to be trained, and the training images."""
    folder, config, groups, _ = outfits
    model = Model(asked_of(folder, groups, config, published=True))
    return model, read_latents(model, str(folder), "train")


def test_hidden_images_are_learnt_plainly_until_the_model_is_sure(in_training):
    model, train = in_training
    model.prior = None
    rows = train.rows(True)[:4], train.rows(False)[:4]

    def loss(temperature, **knobs):
        model.knobs = DmisKnobs(**knobs)
        dice = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return float(generative._loss(model, train, rows, dice, temperature))

    plain = loss(None)
    assert loss(1e9, confidence=0.9) == pytest.approx(plain, abs=1e-6)  # half and half: unsure
    assert loss(1e9, confidence=0.5, classification_weight=0.0) != pytest.approx(plain, abs=1e-4)
    known = loss(None) - loss(0.002, confidence=0.0, classification_weight=0.0)
    twice = loss(0.002, confidence=0.0, classification_weight=0.4)
    once = loss(0.002, confidence=0.0, classification_weight=0.2)
    assert twice - once == pytest.approx(once - plain + known, abs=1e-6) and twice > once
    soft, hard = (
        loss(0.02, confidence=0.0, hard=hard, classification_weight=0.0) for hard in (False, True)
    )
    assert soft != pytest.approx(hard, abs=1e-6)


def test_published_a_prior_is_counted_and_weights_are_averaged(in_training):
    model, train = in_training
    model.knobs = DmisKnobs(published=True, steps=2, batch_size=8).settled()
    weights = [model.network.conv_out.weight.detach().clone()]
    mean = model.judge.model.conv_out.weight
    assert torch.equal(mean, weights[0])
    fit(model, train, 0)
    assert torch.allclose(model.prior, torch.tensor([[0.8, 0.2], [0.2, 0.8]]))
    moved, followed = (
        float((w.detach() - weights[0]).norm()) for w in (model.network.conv_out.weight, mean)
    )
    assert 0.4 * moved < followed < moved
    size = train.clean[0].numel()
    assert generative.chosen_temperature(model, train, (0.5,), 0) == 2 / size


@pytest.mark.slow
def test_the_stage_keeps_what_is_given_and_says_how_sure_it_is(outfits, tmp_path, ray_local):
    folder, config, groups, truth = outfits
    facts = run_grouping(config, str(folder), groups, f"{tmp_path}/work", Progress())
    found = Groups.from_dict(facts["groups"])
    assert found.names == groups.names and facts["measured"] == groups.to_dict()
    assert facts["found"]["inferred"] == {"train": 60, "validation": 3}
    assert facts["found"]["known"] == 20
    assert facts["found"]["own"] == {  # the known ones are where they were
        name: {name: n} for name, n in zip(groups.names, (8, 2, 2, 8), strict=True)
    }
    sure = read_table(f"{tmp_path}/work", files=[f"{tmp_path}/work/{FOUND_FILE}"])
    assert sure.schema.equals(FOUND) and len(sure) == 96
    given = read_table(str(folder), ["id", "attribute"])
    known = dict(zip(given["id"].to_pylist(), given["attribute"].to_pylist(), strict=True))
    for row in sure.to_pylist():
        assert row["known"] == (known[row["id"]] != UNKNOWN)
        if row["known"]:
            assert row["attribute"] == truth[row["id"]] and row["confidence"] == 1
    assert sum(facts["counts"]["train"]) == 80
    again = inferred(asked_of(folder, groups, config), 1.0)
    posterior = dict(zip(sure["id"].to_pylist(), sure["posterior"].to_pylist(), strict=True))
    assert np.allclose([posterior[name] for name in again.ids], again.posterior, atol=1e-5)


def folder_of(tmp_path, rows):
    """A configuration of a folder with attributes of some images."""
    from tests.datasets.test_folder import config_for, write_folder

    write_folder(tmp_path, rows)
    return config_for(tmp_path, "dataset.attributes=unknown", "grouping.method=dmis")


def rows_of(known):
    """Rows of a folder of two classes and attributes; `known`: (split, y, a, number) -> bool."""
    return [
        (f"images/{s}{y}{a}{i}.png", y, a if known(s, y, a, i) else None, s)
        for s in ("train", "validation", "test")
        for y in ("cat", "dog")
        for a in ("day", "night")
        for i in range(4)
    ]


def test_an_attribute_that_is_never_labelled_in_a_class_is_refused(tmp_path):
    config = folder_of(
        tmp_path, rows_of(lambda s, y, a, i: s == "test" or (y, a) != ("dog", "day"))
    )
    with pytest.raises(
        DataError, match=r"no training image of dog/day has its attribute.*Fix: lab"
    ):
        check_configuration(config)


def test_without_any_attribute_there_is_nothing_to_infer_among(tmp_path):
    config = folder_of(tmp_path, rows_of(lambda *_: False))
    with pytest.raises(
        DataError, match=r"dmis: the data set gives no two attributes.*conflict_min"
    ):
        check_configuration(config)


def test_what_it_cannot_work_with_is_refused_before_ray():
    settings = [*SMALL, "generator=vanilla", "prompts.template=a photo of a {label}"]
    with pytest.raises(ConfigError, match=r"has no {attribute}.*Fix: prompts.template"):
        check_configuration(load_config(None, settings))
    check_configuration(load_config(None, [*SMALL, "generator=vanilla"]))
    with pytest.raises(DataError, match=r"no training image of pullover/grass, pullover/gravel"):
        check_configuration(
            load_config(None, [*SMALL, "generator=vanilla", "dataset.hidden_attributes=1.0"])
        )


def test_words_that_the_embedded_base_spells_are_warned_of():
    groups = Groups(("a", "b"), ("x", "y"), ("pullover", "coat"), ("plain red", "alpha"))
    (said,) = grouping_warnings(load_config(None, list(SMALL)), groups)
    assert ": alpha: no word of the embedded base" in said
    assert not grouping_warnings(load_config(None, []), groups)
    known = Groups(("a", "b"), ("x", "y"), ("pullover", "coat"), ("plain red", "grass"))
    assert not grouping_warnings(load_config(None, list(SMALL)), known)


def test_published_settings_are_theirs_and_no_others():
    knobs = DmisKnobs(published=True, steps=7).settled()
    assert (knobs.steps, knobs.warm_up, knobs.confidence, knobs.temperature) == (7, 0, 0, "elbo")
    assert knobs.classification_weight == 1 and DmisKnobs().settled() == DmisKnobs()
    with pytest.raises(ConfigError, match=r"published: true sets confidence, warm_up too.*Fix"):
        load_config(
            None, ["grouping.method={name: dmis, published: true, warm_up: 0.5, confidence: 0.5}"]
        )


def test_passes_are_counted():
    passes = PART.passes(DmisKnobs(steps=10, batch_size=8, warm_up=0.5), 3, 100)
    assert passes.trained == 10 * 8 + 5 * 4 * 3  # and every candidate of an unknown one
    assert passes.forward == 5 * 4 * 3 * 2 + 100 * 3 * 6
    assert PART.passes(DmisKnobs(steps=10, batch_size=8, warm_up=1.0), 3, 100).trained == 80
