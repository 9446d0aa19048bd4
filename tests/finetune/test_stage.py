"""The stage on a real Ray Train: packs in parallel, failures named, finished work kept."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
import ray

from raysynth.errors import StageError
from raysynth.finetune.plan import Adapter, read_adapters, write_adapter
from raysynth.finetune.stage import run_finetune
from raysynth.progress import Progress
from raysynth.tables import read_table, write_table
from tests.finetune.conftest import GROUPS


class Said(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[float] = []
        self.lines: list[str] = []

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        self.done.append(done)

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_packs_train_in_parallel_and_failures_are_named(ray_local, room, tmp_path):
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
    facts = run_finetune(config, room.real, f"{tmp_path}/clusters", GROUPS, str(work), said)

    assert facts["rows"] == 3
    assert list(facts["failed"]) == ["0-1"] and "missing" in facts["failed"]["0-1"]
    assert any("0-1 failed" in line for line in said.lines)
    adapters = read_adapters(str(work))
    assert [adapter.name for adapter in adapters] == ["0-0", "2-0", "3-0"]
    assert adapters[0] == kept
    assert sorted(path.name for path in work.iterdir()) == ["0-0", "2-0", "3-0", "adapters.json"]
    assert said.done == sorted(said.done) and said.done[-1] == 4 * config.finetune.steps


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


def test_nothing_left_to_train_starts_no_worker(room, tmp_path):
    record = Adapter("shared", "full", "all", -1, -1, "", "", "", 37, 3, 0.5)
    (tmp_path / "shared").mkdir()
    write_adapter(record, str(tmp_path / "shared"))
    config = room.config("shared", per="all")
    facts = run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), Said())
    assert facts == {"rows": 1, "failed": {}}


def test_vanilla_trains_nothing(room, tmp_path):
    config = room.config("vanilla")
    facts = run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), Said())
    assert facts == {"rows": 0, "failed": {}}
    assert read_adapters(str(tmp_path)) == []


def test_all_failed_is_an_error(room, tmp_path, monkeypatch):
    def crash(*_args):
        raise RuntimeError("no worker could be placed")

    monkeypatch.setattr("raysynth.finetune.stage._fit", crash)
    with pytest.raises(StageError, match=r"all 4 adapters failed:\n  0-0: .*no worker could be"):
        run_finetune(room.config(), room.real, room.clusters, GROUPS, str(tmp_path), Said())
