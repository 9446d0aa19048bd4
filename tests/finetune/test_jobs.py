"""Which adapters are trained, on what, and how they are dealt to workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raysynth.adapters.record import read_adapter, read_adapters, write_adapters
from raysynth.config.config import Config
from raysynth.errors import ConfigError, DataError
from raysynth.finetune.draws import draw, draw_held_out, held_out_rows, noise_of
from raysynth.finetune.jobs import record_of
from raysynth.finetune.packs import split_into_packs
from raysynth.finetune.training import train_pack
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from tests.finetune.conftest import COUNTS, jobs_of

GROUPS = Groups(("a", "b", "c"), ("x", "y"), ("ay", "bee", "cee"), ("ex", "why"))


def table(sizes):
    rows = [(f"{g}-{k}-{i}", g, k) for (g, k), n in sizes.items() for i in range(n)]
    return pa.table(
        dict(zip(("id", "group", "cluster"), map(list, zip(*rows, strict=True)), strict=True))
    )


def config(generator="clustered_dreambooth", **finetune):
    return Config.model_validate(
        {"generator": generator, "finetune": {"min_images": 5, **finetune}}
    )


SIZES = {(0, 0): 20, (0, 1): 10, (1, 0): 4, (2, 0): 3, (3, 0): 30, (4, 0): 30, (5, 0): 6}


def test_one_adapter_per_group_cluster_of_large_enough_groups():
    jobs = jobs_of(config(), table(SIZES), GROUPS)
    assert [job.name for job in jobs] == ["0-0", "0-1", "3-0", "4-0", "5-0"]
    assert jobs[2].prompts == {3: "a photo of a sks bee on why"}
    assert jobs[2].plain_prompts == {3: "a photo of a bee on why"}
    assert set(jobs[1].ids) == {f"0-1-{i}" for i in range(10)}


@pytest.mark.parametrize("generator", ["shared", "edit"])
def test_one_model_for_all_groups_that_are_large_enough(generator):
    settings = config(generator, per="all")
    (job,) = jobs_of(settings, table(SIZES), GROUPS)
    assert job.name == "shared" and len(job.ids) == 96
    assert set(job.prompts) == {0, 3, 4, 5} and job.conflicting == (5,)
    record = record_of(job, recipe_of(settings).training, GROUPS, 9, 0.5)
    assert (record.engine, record.scope, record.group, record.label) == ("full", "all", -1, "")
    (job,) = jobs_of(config(generator, min_images=3), table(SIZES), GROUPS)
    assert len(job.ids) == sum(SIZES.values()) and job.conflicting == (1, 2, 5)
    named = replace(GROUPS, aligned=("", "", "y"))
    (job,) = jobs_of(settings, table(SIZES), named)
    assert job.conflicting == (4,), "the larger group of c, which goes with y"


def test_one_model_per_class():
    settings = config("shared", per="class")
    jobs = jobs_of(settings, table(SIZES), GROUPS)
    assert [job.name for job in jobs] == ["class-0", "class-1", "class-2"]
    assert [(set(job.prompts), job.conflicting) for job in jobs] == [
        ({0}, ()),
        ({3}, ()),
        ({4, 5}, (5,)),
    ]
    record = record_of(jobs[2], recipe_of(settings).training, GROUPS, 9, 0.5)
    assert (record.scope, record.label, record.attribute, record.group) == ("class", "c", "", -1)
    assert (noise_of(jobs[0], 7, (2, 3), 0) != noise_of(jobs[1], 7, (2, 3), 0)).any()


def test_one_model_per_attribute():
    """Attribute 0 has groups 0 and 4 of enough images, attribute 1 groups 3 and 5."""
    settings = config("shared", per="attribute")
    jobs = jobs_of(settings, table(SIZES), GROUPS)
    assert jobs == jobs_of(config("shared"), table(SIZES), GROUPS), "two groups are too small"
    assert [(job.name, set(job.prompts), job.conflicting) for job in jobs] == [
        ("attribute-0", {0, 4}, ()),
        ("attribute-1", {3, 5}, (5,)),
    ]
    record = record_of(jobs[1], recipe_of(settings).training, GROUPS, 9, 0.5)
    name = GROUPS.attribute_names[1]
    assert (record.scope, record.label, record.attribute, record.group) == (
        "attribute",
        "",
        name,
        -1,
    )
    assert (noise_of(jobs[0], 7, (2, 3), 0) != noise_of(jobs[1], 7, (2, 3), 0)).any()
    few = {key: size for key, size in SIZES.items() if key[0] not in (3, 5)} | {(2, 0): 20}
    (job,) = jobs_of(settings, table(few), GROUPS)
    assert job.name == "attribute-0", "nothing shows the other attribute"


@pytest.mark.parametrize(("generator", "engine"), [("lora", "lora"), ("dreambooth", "full")])
def test_one_model_per_group(generator, engine):
    jobs = jobs_of(config(generator), table(SIZES), GROUPS)
    assert [(job.name, len(job.ids)) for job in jobs] == [
        ("0-0", 30),
        ("3-0", 30),
        ("4-0", 30),
        ("5-0", 6),
    ]
    record = record_of(jobs[0], recipe_of(config(generator)).training, GROUPS, 9, 0.5)
    assert (record.engine, record.scope, record.cluster) == (engine, "group", 0)


def test_vanilla_trains_nothing():
    assert jobs_of(config("vanilla"), table(SIZES), GROUPS) == []


def test_a_class_without_a_group_that_is_large_enough_is_refused():
    small = table({**SIZES, (3, 0): 4})
    with pytest.raises(DataError, match=r"finetune\.min_images=5.*largest: b/y: 4.*Fix"):
        jobs_of(config(), small, GROUPS)


def test_packs_are_balanced_by_work_longest_first():
    overrides = {"5-0": {"steps": 900}, "0-0": {"steps": 500}}
    jobs = jobs_of(config(overrides=overrides), table(SIZES), GROUPS)
    packs = split_into_packs(jobs, "auto", 2)
    work = [sum(job.work for job in pack) for pack in packs]
    assert max(work) - min(work) <= min(job.work for job in jobs)
    assert all([j.work for j in p] == sorted((j.work for j in p), reverse=True) for p in packs)


def test_small_clusters_take_smaller_batches_and_fewer_steps():
    settings = config(max_passes=10, steps=100, batch_size=12, accumulation=2)
    budgets = {job.name: (job.batch, job.steps) for job in jobs_of(settings, table(SIZES), GROUPS)}
    # 10 passes over n images, in steps of twice a batch.
    assert budgets["5-0"] == (6, 5) and budgets["0-1"] == (10, 5) and budgets["3-0"] == (12, 13)


def test_overrides_have_the_last_word():
    own = {"batch_size": 3, "steps": 7, "learning_rate": 0.5}
    jobs = jobs_of(config(max_passes=1, overrides={"3-0": own}), table(SIZES), GROUPS)
    job = next(job for job in jobs if job.name == "3-0")
    assert (job.batch, job.steps, job.learning_rate) == (3, 7, 0.5)
    with pytest.raises(ConfigError, match=r"no adapter 9-9; expected one of 0-0, 0-1"):
        jobs_of(config(overrides={"9-9": own}), table(SIZES), GROUPS)


def test_held_out_images_are_never_trained_on():
    settings = config(patience=2, holdout=0.2, steps=50)
    job = jobs_of(settings, table(SIZES), GROUPS)[0]
    kept = held_out_rows(job, settings.finetune, seed=0)
    assert len(kept) == 4
    assert not np.isin(draw(job, settings.finetune, seed=0).rows, kept).any()
    assert set(draw_held_out(job, settings.finetune, seed=0).rows.ravel()) == set(kept.tolist())
    assert not len(held_out_rows(job, config().finetune, seed=0))


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"per": "all"}, 0.1),
        ({"per": "class"}, 0.1),
        ({"per": "attribute"}, 0.0),
        ({"min_images": 7}, 0.0),  # a group is too small: a model per attribute
        ({"per": "attribute", "prompt_dropout": 0.3}, 0.3),
    ],
)
def test_a_model_per_attribute_always_hears_its_prompts(settings, share):
    """Else it learns to draw the label it sees without being asked, and guidance avoids that."""
    settings = config("shared", **{"steps": 200, "batch_size": 32, "min_images": 1, **settings})
    for job in jobs_of(settings, table(SIZES), GROUPS):
        dropped = draw(job, settings.finetune, seed=0).dropped.mean()
        assert dropped == pytest.approx(share, abs=0.03 * (share > 0))


@pytest.mark.parametrize(
    ("per_worker", "workers", "sizes"),
    [("auto", 2, [2, 3]), (1, 2, [1] * 5), (2, 2, [2, 2, 1]), ("auto", 9, [1] * 5)],
)
def test_packs(per_worker, workers, sizes):
    jobs = jobs_of(config(), table(SIZES), GROUPS)
    packs = split_into_packs(jobs, per_worker, workers)
    assert [len(pack) for pack in packs] == sizes
    assert {job.name for pack in packs for job in pack} == {job.name for job in jobs}


def test_shared_over_samples_conflicting_groups_in_every_batch():
    settings = config("shared", oversample=0.25, batch_size=12, steps=40, min_images=1)
    (job,) = jobs_of(settings, table({**SIZES, (0, 0): 400}), GROUPS)
    group = np.array(job.groups)[draw(job, settings.finetune, seed=0).rows]
    assert (np.isin(group, job.conflicting).sum(1) == 3).all()
    counts = np.bincount(group.ravel(), minlength=6)
    assert counts.tolist() == [120, 40, 40, 120, 120, 40]
    bounded = config("shared", batch_size=12, steps=40, min_images=1, max_passes=1.0)
    (job,) = jobs_of(bounded, table({**SIZES, (0, 0): 400}), GROUPS)
    group = np.array(job.groups)[draw(job, bounded.finetune, seed=0).rows]
    seen = np.bincount(group.ravel(), minlength=6)
    assert (seen <= np.bincount(job.groups, minlength=6)).all() and seen.sum() == 480
    assert (seen[list(job.conflicting)] == np.bincount(job.groups)[list(job.conflicting)]).all()


@pytest.mark.parametrize(
    "counts",
    [(3498, 184, 10, 1057), (4000, 20, 20, 40), (10_000, 8, 8, 10_000), (1980, 20, 20, 1980)],
)
@pytest.mark.parametrize("engine", [{}, {"engine": "lora", "batch_size": 4, "steps": 4000}])
def test_no_group_of_a_shared_model_is_seen_more_often_than_max_passes(counts, engine):
    groups = Groups(("a", "b"), ("x", "y"), ("a", "b"), ("x", "y"))
    settings = Config(generator="shared", finetune={"per": "all", **engine})
    (job,) = jobs_of(settings, table({(g, 0): n for g, n in enumerate(counts)}), groups)
    rows = draw(job, settings.finetune, seed=0).rows
    seen = np.bincount(np.array(job.groups)[rows.ravel()], minlength=4)
    assert (seen <= job.max_passes * np.array(counts)).all()
    assert seen.sum() == job.steps * job.batch
    halves = np.array(job.groups)[rows]
    parts = [np.bincount(half.ravel(), minlength=4) for half in np.array_split(halves, 2)]
    assert (np.abs(parts[0] - parts[1]) <= 0.1 * seen + job.batch).all(), "evenly in time"


def test_every_image_of_a_cluster_is_used_equally_often():
    settings = config(steps=5, batch_size=4)
    job = jobs_of(settings, table(SIZES), GROUPS)[1]
    rows = draw(job, settings.finetune, seed=0).rows
    assert np.bincount(rows.ravel()).tolist() == [2] * 10


def test_draws_depend_on_seed_group_and_cluster_only():
    one, other = jobs_of(config(), table(SIZES), GROUPS)[1:3]
    noise = noise_of(one, 7, (2, 3), 0)
    assert (noise_of(one, 7, (2, 3), 0) == noise).all()
    assert (noise_of(one, 7, (2, 3), 1) != noise).any()
    assert (noise_of(one, 8, (2, 3), 0) != noise).any()
    assert (noise_of(other, 7, (2, 3), 0) != noise).any()


def test_records_survive_writing(tmp_path):
    jobs = jobs_of(config(), table(SIZES), GROUPS)
    adapters = [record_of(job, recipe_of(config()).training, GROUPS, 90, 0.5) for job in jobs]
    write_adapters(adapters, str(tmp_path))
    assert read_adapters(str(tmp_path)) == adapters
    assert (adapters[2].label, adapters[2].attribute, adapters[2].group) == ("b", "y", 3)


def test_loft_has_an_adapter_for_every_image(room, tmp_path):
    config = room.config("loft", steps=2)
    jobs = room.jobs(config)
    assert [job.name for job in jobs[:2]] == ["0-0", "0-1"]
    assert len(jobs) == sum(COUNTS.values()) and all(len(job.ids) == 1 for job in jobs)
    assert len({job.ids for job in jobs}) == len(jobs) and {job.batch for job in jobs} == {1}
    assert {job.group for job in jobs} == {group for group, _ in COUNTS}, "the smallest too"
    assert train_pack(room.pack(config, tmp_path, ["1-0", "1-2"]), lambda *_, **__: None) == {}
    assert read_adapter(str(tmp_path / "1-2")).scope == "image"


@pytest.mark.parametrize("keys", [{"engine": "full"}, {"experts": 2}, {"dora": True}])
def test_loft_refuses_what_cannot_be_added_up(room, keys):
    with pytest.raises(ValueError, match=r"adds adapters of single images up.*Fix: finetune\."):
        room.config("loft", **keys)
