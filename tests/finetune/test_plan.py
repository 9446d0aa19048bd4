"""Which adapters are trained, on what, and how they are dealt to workers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raysynth.config import Config
from raysynth.errors import DataError
from raysynth.finetune.draws import draw, noise_of
from raysynth.finetune.plan import (
    plan_jobs,
    read_adapters,
    record_of,
    split_into_packs,
    write_adapters,
)
from raysynth.groups import Groups

GROUPS = Groups(("a", "b", "c"), ("x", "y"), ("ay", "bee", "cee"), ("ex", "why"))


def table(sizes):
    rows = [(f"{g}-{k}-{i}", g, k) for (g, k), n in sizes.items() for i in range(n)]
    return pa.table(
        dict(zip(("id", "group", "cluster"), map(list, zip(*rows, strict=True)), strict=True))
    )


def config(**finetune):
    return Config.model_validate({"finetune": {"min_images": 5, **finetune}})


SIZES = {(0, 0): 20, (0, 1): 10, (1, 0): 4, (2, 0): 3, (3, 0): 30, (4, 0): 30, (5, 0): 6}


def test_one_adapter_per_group_cluster_of_large_enough_groups():
    jobs = plan_jobs(config(), table(SIZES), GROUPS)
    assert [job.name for job in jobs] == ["0-0", "0-1", "3-0", "4-0", "5-0"]
    assert jobs[2].prompts == {3: "a photo of a sks bee on why"}
    assert jobs[2].plain_prompts == {3: "a photo of a bee on why"}
    assert set(jobs[1].ids) == {f"0-1-{i}" for i in range(10)}


def test_shared_takes_every_group():
    (job,) = plan_jobs(config(scope="shared"), table(SIZES), GROUPS)
    assert job.name == "shared" and len(job.ids) == sum(SIZES.values())
    assert job.conflicting == (1, 2, 5)
    assert set(job.prompts) == set(range(6))


def test_no_group_large_enough_is_refused():
    with pytest.raises(DataError, match=r"finetune\.min_images.*b/y: 30"):
        plan_jobs(config(min_images=31), table(SIZES), GROUPS)


@pytest.mark.parametrize(
    ("per_worker", "workers", "sizes"),
    [("auto", 2, [3, 2]), (1, 2, [1] * 5), (2, 2, [2, 2, 1]), ("auto", 9, [1] * 5)],
)
def test_packs(per_worker, workers, sizes):
    jobs = plan_jobs(config(), table(SIZES), GROUPS)
    packs = split_into_packs(jobs, per_worker, workers)
    assert [len(pack) for pack in packs] == sizes
    assert {job.name for pack in packs for job in pack} == {job.name for job in jobs}


def test_shared_over_samples_conflicting_groups_in_every_batch():
    settings = config(scope="shared", oversample=0.25, batch_size=12, steps=40).finetune
    (job,) = plan_jobs(config(scope="shared"), table({**SIZES, (0, 0): 400}), GROUPS)
    group = np.array(job.groups)[draw(job, settings, seed=0).rows]
    assert (np.isin(group, job.conflicting).sum(1) == 3).all()
    counts = np.bincount(group.ravel(), minlength=6)
    assert counts.tolist() == [120, 40, 40, 120, 120, 40]


def test_every_image_of_a_cluster_is_used_equally_often():
    job = plan_jobs(config(), table(SIZES), GROUPS)[1]
    rows = draw(job, config(steps=5, batch_size=4).finetune, seed=0).rows
    assert np.bincount(rows.ravel()).tolist() == [2] * 10


def test_draws_depend_on_seed_group_and_cluster_only():
    jobs = plan_jobs(config(), table(SIZES), GROUPS)
    alone, packed = noise_of(jobs[1:2], [7], (2, 3), 0), noise_of(jobs, [3, 7, 0, 0, 0], (2, 3), 0)
    assert (alone[0] == packed[1]).all()
    assert (noise_of(jobs[1:2], [7], (2, 3), 1) != alone).any()
    assert (noise_of(jobs[1:2], [8], (2, 3), 0) != alone).any()


def test_records_survive_writing(tmp_path):
    jobs = plan_jobs(config(), table(SIZES), GROUPS)
    adapters = [record_of(job, config(), GROUPS, 0.5) for job in jobs]
    write_adapters(adapters, str(tmp_path))
    assert read_adapters(str(tmp_path)) == adapters
    assert (adapters[2].label, adapters[2].attribute, adapters[2].group) == ("b", "y", 3)
