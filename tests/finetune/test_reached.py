"""A fine-tuning that goes on shows at once what is kept."""

from __future__ import annotations

import pytest
import torch

from raysynth.adapters.record import Adapter, write_adapter
from raysynth.errors import StageError
from raysynth.finetune.checkpoints import Checkpoint, write_checkpoint
from raysynth.finetune.experts import expanded
from raysynth.finetune.reached import Reached, checkpoint_step, kept_steps
from raysynth.finetune.stage import run_finetune
from raysynth.finetune.training import train_pack
from tests.finetune.conftest import GROUPS
from tests.finetune.test_stage import Said


def checkpoint(folder, step: int) -> None:
    empty = torch.empty(0)
    own = Checkpoint(step, torch.ones(4), {}, empty, torch.ones(step), empty, 1.0, 0)
    write_checkpoint(own, str(folder))


def adapter(folder, name: str) -> None:
    (folder / name).mkdir()
    kept = Adapter(name, "lora", "group_cluster", 0, 0, "pullover", "grass", "kept", 9, 3, 0.5)
    write_adapter(kept, str(folder / name))


def test_steps_of_checkpoints_are_shown_before_a_worker_speaks(room, tmp_path, monkeypatch):
    def away(*_args):
        raise RuntimeError("no worker could be placed")

    monkeypatch.setattr("raysynth.finetune.stage._fit", away)
    config, said = room.config(steps=20), Said()
    adapter(tmp_path, "0-0")
    checkpoint(tmp_path / "0-1", 6)
    checkpoint(tmp_path / "2-0", 4)
    with pytest.raises(StageError, match="3 of 4 adapters failed"):
        run_finetune(config, room.real, room.clusters, GROUPS, str(tmp_path), said)
    kept = 20 + 6 + 4
    assert said.done[0] == kept and set(said.done[:-1]) == {kept}


def test_what_workers_say_takes_the_place_of_what_was_kept(room, tmp_path):
    config = room.config(steps=20)
    jobs = room.jobs(config)
    checkpoint(tmp_path / "0-1", 6)
    todo = [job for job in jobs if job.name != "2-0"]
    reached = Reached(jobs, todo, config.finetune, str(tmp_path))
    assert (reached.done, reached.total) == (20 + 6, 4 * 20)
    reached.take_in({"0-1": 8, "3-0": 2})
    reached.take_in({"0-1": 9})
    assert reached.done == 20 + 11


def test_what_workers_wait_for_is_said_until_one_has_taken_a_step(room, tmp_path):
    config = room.config(steps=20)
    jobs = room.jobs(config)
    reached = Reached(jobs, jobs, config.finetune, str(tmp_path))
    assert reached.what == "4 adapters, steps"
    reached.doing["pack-0"] = "the first step"
    assert reached.what == "4 adapters, the first step, steps"
    reached.doing["pack-1"] = ""
    assert reached.what == "4 adapters, steps"


def test_a_worker_says_what_it_does_before_its_steps(room, tmp_path):
    told: list[tuple[str, bool]] = []

    def report(done, failed, *more, doing="", **other):
        told.append((doing, bool(done)))

    assert train_pack(room.pack(room.config(steps=2), tmp_path), report) == {}
    loading = "loading the base model and measuring a step"
    before = [(loading, False), ("encoding images and prompts", False), ("the first step", False)]
    assert told[:3] == before and ("", True) in told[3:]
    assert not any(doing for doing, done in told if done)


def test_experts_count_beside_the_adapter_that_they_go_on_from(room, tmp_path):
    config = room.config(steps=20, experts=2, experts_share=0.5)
    [job] = [job for job in room.jobs(config) if job.name == "3-0"]
    adapter(tmp_path, "3-0")
    checkpoint(tmp_path / "3-0.t1", 4)
    assert kept_steps(expanded([job], config.finetune), str(tmp_path)) == {"3-0": 10, "3-0.t1": 4}


@pytest.mark.parametrize("content", [b"", b"\x09", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 40])
def test_a_cut_checkpoint_is_worth_nothing(tmp_path, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    assert checkpoint_step(str(tmp_path)) == 0
