"""The stage on a real Ray Train: packs in parallel, failures named, finished work kept."""

from __future__ import annotations

import time
from dataclasses import replace

import psutil
import pyarrow as pa
import pytest
import ray

from raysynth.adapters.record import Adapter, read_adapters, write_adapter
from raysynth.errors import ConfigError, StageError
from raysynth.finetune.stage import run_finetune
from raysynth.progress import Progress
from raysynth.storage.tables import read_table, write_table
from tests.finetune.conftest import GROUPS


class Said(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[float] = []

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        self.done.append(done)


@pytest.mark.slow
def test_failures_are_named_and_trained_by_the_next_run(ray_local, room, tmp_path):
    config = room.config(max_failures=0)
    kept = Adapter("0-0", "lora", "group_cluster", 0, 0, "pullover", "grass", "kept", 9, 3, 0.5)
    work = tmp_path / "work"
    (work / "0-0").mkdir(parents=True)
    write_adapter(kept, str(work / "0-0"))
    clusters = read_table(room.clusters)
    ids = [i if not i.startswith("g0k1") else f"gone-{i}" for i in clusters["id"].to_pylist()]
    broken = clusters.set_column(0, "id", pa.array(ids))
    write_table(broken, f"{tmp_path}/clusters/clusters.parquet")

    said = Said()
    reason = r"1 of 4 adapters failed:\n  0-1: .*missing(.|\n)*run again"
    with pytest.raises(StageError, match=reason):
        run_finetune(config, room.real, f"{tmp_path}/clusters", GROUPS, str(work), said)
    assert not (work / "adapters.json").exists()
    assert said.done == sorted(said.done) and said.done[-1] == 4 * config.finetune.steps
    others = {name: (work / name / "adapter.json").stat().st_mtime_ns for name in ("2-0", "3-0")}

    assert run_finetune(config, room.real, room.clusters, GROUPS, str(work), Said()) == {"rows": 4}
    adapters = read_adapters(str(work))
    assert [adapter.name for adapter in adapters] == ["0-0", "0-1", "2-0", "3-0"]
    assert adapters[0] == kept
    for name, written in others.items():
        assert (work / name / "adapter.json").stat().st_mtime_ns == written
    names = sorted(path.name for path in work.iterdir())
    assert names == ["0-0", "0-1", "2-0", "3-0", "adapters.json"]


class Interrupted(Said):
    """Ctrl-C, once the first steps are done."""

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        if done:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_trainings_end_with_their_driver_where_ray_goes_on(ray_local, room, tmp_path):
    """As below a notebook that called ray.init itself."""
    whole = ray.cluster_resources()["CPU"]
    config = room.config(steps=20_000, checkpoint_steps=100)
    with pytest.raises(KeyboardInterrupt):
        run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), Interrupted())
    assert ray.available_resources().get("CPU", 0) < whole
    until = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < whole:
        assert time.monotonic() < until, "the workers train on"
        time.sleep(0.5)
    assert not list(tmp_path.glob("*/adapter.json"))


class Killing(Said):
    """Ends a training worker by force, once it has kept something; remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.killed, self.said = 0, []

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        super().update(what, done, total)
        if done > 200 and not self.killed:
            workers = [
                each
                for each in psutil.Process().children(recursive=True)
                if "RayTrainWorker" in "".join(each.cmdline())
            ]
            workers[0].kill()
            self.killed = workers[0].pid

    def say(self, text: str, mark: str = "", level: str = "info", **numbers: object) -> None:
        self.said.append(text)


@pytest.mark.slow
def test_a_lost_worker_is_said_with_what_is_kept(ray_local, room, tmp_path):
    config = room.config(steps=400, checkpoint_steps=20)
    said = Killing()
    facts = run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), said)
    assert facts["rows"] == 4 and said.killed
    lost = [text for text in said.said if "was lost" in text]
    assert lost and all("a worker was lost; attempt 2 of 3 goes on at step " in t for t in lost)
    steps = [
        int(text.rpartition("at step ")[2].partition(" ")[0].replace(",", "")) for text in lost
    ]
    assert max(steps) >= 20


def test_nothing_left_to_train_starts_no_worker(room, tmp_path):
    record = Adapter("shared", "full", "all", -1, -1, "", "", "", 37, 3, 0.5)
    (tmp_path / "shared").mkdir()
    write_adapter(record, str(tmp_path / "shared"))
    config = room.config("shared", per="all")
    facts = run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), Said())
    assert facts == {"rows": 1}
    write_adapter(replace(record, terms={"cbdm": 0.25}), str(tmp_path / "shared"))
    facts = run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), Said())
    assert facts == {"rows": 1, "terms": {"shared": {"cbdm": 0.25}}}
    assert read_adapters(str(tmp_path))[0].terms == {"cbdm": 0.25}


def test_terms_that_find_nobody_are_refused_before_a_worker_starts(room, tmp_path):
    config = room.config("shared", per="attribute", terms=["overlap"])
    with pytest.raises(ConfigError, match=r"attribute-0.*does not speak for"):
        run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), Said())


def test_vanilla_trains_nothing(room, tmp_path):
    config = room.config("vanilla")
    facts = run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), Said())
    assert facts == {"rows": 0}
    assert read_adapters(str(tmp_path)) == []


def test_workers_that_crash_fail_their_adapters(room, tmp_path, monkeypatch):
    def crash(*_args):
        raise RuntimeError("no worker could be placed")

    monkeypatch.setattr("raysynth.finetune.stage._fit", crash)
    with pytest.raises(StageError, match=r"4 of 4 adapters failed:\n  0-0: .*no worker could be"):
        run_finetune(room.config(), room.real, room.clusters, GROUPS, str(tmp_path), Said())
