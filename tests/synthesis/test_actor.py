"""The actor and the stage around a sampler that is no model: threads, spans, block files."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raysynth.config.config import Config
from raysynth.errors import DamagedError
from raysynth.progress import Progress
from raysynth.scoring.columns import scores_of
from raysynth.storage.tables import decode_images
from raysynth.synthesis.actor import Synthesizer
from raysynth.synthesis.shards import read_manifest, read_shards
from raysynth.synthesis.stage import generate
from raysynth.synthesis.task import Task
from raysynth.synthesis.timeline import read_timeline
from tests.synthesis.conftest import COUNTS, GROUPS, plan_of, planned

STREAMED: dict[str, Any] = {
    "images_per_group": 50,
    "batch_size": 8,
    "rows_per_shard": 20,
    "actors": 2,
}


def make_config(**synthesis: Any) -> Config:
    return Config.model_validate({"generator": "vanilla", "synthesis": synthesis})


def make_task(**synthesis: Any) -> Task:
    """A task whose images are flat, in a colour of their seed."""

    # Inside, so that Ray's workers get the class itself: they cannot import the tests.
    class Flat:
        def __init__(self, task: Task) -> None:
            self.inside, self.most, self.prepared = 0, 0, threading.Semaphore(0)
            self.scorers = task.drawing.synthesis.scorers

        def prepare(self, specs: pa.Table) -> np.ndarray:
            self.prepared.release()
            return specs["seed"].to_numpy()

        def denoise(self, seeds: np.ndarray) -> np.ndarray:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.02)
            return seeds

        def decode(self, seeds: np.ndarray, specs: pa.Table) -> np.ndarray:
            colour = (seeds % 251).astype(np.uint8)
            return np.broadcast_to(colour[:, None, None, None], (len(seeds), 8, 8, 3)).copy()

        def score(self, images: np.ndarray, specs: pa.Table, _: Any) -> dict[str, pa.Array]:
            self.inside -= 1
            said: dict[Any, Any] = {pa.float32(): 0.5, pa.string(): "real-0"}
            scores = scores_of([scorer.name for scorer in self.scorers])
            return {
                field.name: pa.array([said[field.type]] * len(images), field.type)
                for field in scores
            }

    return Task.of(make_config(**synthesis), GROUPS, "", (), "", sampler=Flat)


def specs_of(**synthesis: Any) -> pa.Table:
    return planned(make_config(**synthesis), [], GROUPS, COUNTS)


def test_batches_take_turns_on_the_device_and_prepare_beside_it():
    task = make_task(images_per_group=4)
    actor, specs = Synthesizer(task), specs_of(images_per_group=4)
    actor._device.acquire()
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(actor, specs.slice(first, 8)) for first in (0, 8)]
        for _ in calls:
            assert actor.sampler.prepared.acquire(timeout=10), "prepared while the device is held"
        assert not any(call.done() for call in calls)
        actor._device.release()
        results = [call.result() for call in calls]
    assert actor.sampler.most == 1
    for rows, first in zip(results, (0, 8), strict=True):
        assert rows["id"].to_pylist() == specs["id"].slice(first, 8).to_pylist()
        assert [p[0] for p in rows["pixels"].to_pylist()] == [
            seed % 251 for seed in rows["seed"].to_pylist()
        ]
    first, second = sorted(
        (rows["spans"][0].as_py() for rows in results), key=lambda spans: spans[0]["start"]
    )
    assert {*(s["part"] for s in first)} == {"unet", "decode", "score"}
    assert max(s["end"] for s in first) <= min(s["start"] for s in second)


def test_a_damaged_file_that_stops_an_actors_start_is_known_by_its_path(ray_local, tmp_path):
    class Damaged:
        def __init__(self, task: Task) -> None:
            raise DamagedError("0-0: not finite", "/runs/mini/adapters/0-0")

    task = Task.of(make_config(images_per_group=4), GROUPS, "", (), "", sampler=Damaged)
    plan = plan_of(make_config(images_per_group=4), [], GROUPS, COUNTS)
    with pytest.raises(DamagedError) as refused:
        generate(task, plan, str(tmp_path), Progress())
    assert (str(refused.value), refused.value.path) == (
        "0-0: not finite",
        "/runs/mini/adapters/0-0",
    )


@pytest.fixture(scope="module")
def streamed(ray_local, tmp_path_factory) -> tuple[Task, str]:
    task = make_task(**STREAMED)
    folder = str(tmp_path_factory.mktemp("streamed"))
    generate(task, plan_of(make_config(**STREAMED), [], GROUPS, COUNTS), folder, Progress())
    return task, folder


def test_shards_hold_the_plan_in_order(streamed):
    _, folder = streamed
    specs, table = specs_of(**STREAMED), read_shards(folder)
    assert table["id"].to_pylist() == specs["id"].to_pylist()
    colours = decode_images(table["image"])[:, 0, 0, 0]
    assert np.array_equal(colours, specs["seed"].to_numpy() % 251)


def test_no_image_lies_on_disk_twice(streamed):
    assert not list(Path(streamed[1], "blocks").glob("*.parquet"))


def test_the_timeline_has_every_part_of_every_batch(streamed):
    folder = streamed[1]
    timeline = read_timeline(folder).to_pandas()
    assert dict(timeline.groupby("part")["images"].sum()) == dict.fromkeys(
        ("decode", "encode", "score", "unet"), 200
    )
    manifest = read_manifest(folder)
    assert manifest is not None
    used = manifest["facts"]["utilisation"]
    assert used["actors"] in (1, 2) and 0 < used["unet"] <= used["busy"] <= 1
    assert sum(used["parts"].values()) == pytest.approx(1, abs=1e-3)
