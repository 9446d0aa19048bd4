"""Images in their own proportions: one size a step, every image as often, alone as packed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from raysynth.finetune import training
from raysynth.finetune.draws import draw, draw_held_out
from raysynth.finetune.sized import parts_of, sized
from raysynth.finetune.training import start, train_pack
from raysynth.models.shape import Shape
from tests.finetune.test_training import Killed, assert_same, killed_after, quiet, weights

SHAPE = Shape(latents=(4, 8, 8), factor=4, tokens=8, grain=2)
TALL, WIDE, SQUARE = (40, 24), (24, 40), (32, 32)


def in_proportion(pack, sizes):
    """The pack with images of these sizes in turn."""
    jobs = [
        replace(
            job,
            sizes=tuple(sizes[number % len(sizes)] for number in range(len(job.ids))),
            aspect_ratio=2.0,
        )
        for job in pack.jobs
    ]
    return replace(pack, jobs=jobs)


def job_of(room, config, sizes, tmp_path):
    (job,) = in_proportion(room.pack(config, tmp_path, ["3-0"]), sizes).jobs
    return job


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_steps_images_have_one_size_and_every_image_comes_equally_often(
    room, tmp_path, accumulation
):
    config = room.config(steps=50, batch_size=4, accumulation=accumulation)
    job = job_of(room, config, [TALL, TALL, TALL, WIDE, SQUARE], tmp_path)
    sizes, place = sized(job, SHAPE)
    assert set(sizes) == {TALL, WIDE, SQUARE}
    rows = draw(job, config.finetune, 0, place).rows
    assert all(len({*place[row]}) == 1 for row in rows)
    steps = place[rows[:, 0]].reshape(-1, accumulation)
    assert (steps == steps[:, :1]).all(), "one size a step"
    seen = np.bincount(rows.ravel(), minlength=len(job.ids))
    assert seen.max() - seen.min() <= 1
    tall = np.flatnonzero(steps[:, 0] == list(sizes).index(TALL))
    assert np.diff(tall).max() <= 3, "sizes take turns"


def test_few_steps_show_the_sizes_of_most_images_and_rare_ones_once(room, tmp_path):
    config = room.config(steps=4)
    job = job_of(room, config, [TALL] * 9 + [WIDE], tmp_path)
    _, place = sized(job, SHAPE)
    rows = draw(job, config.finetune, 0, place).rows
    assert sorted(np.bincount(place[rows[:, 0]])) == [1, 3]


def test_draws_of_a_size_are_those_of_a_job_of_its_images(room, tmp_path):
    config = room.config(steps=8, patience=1, holdout=0.4)
    job = job_of(room, config, [TALL, WIDE], tmp_path)
    job = replace(job, captions=tuple(f"a {name}" for name in job.ids))
    _, place = sized(job, SHAPE)
    for draws in (draw(job, config.finetune, 0, place), draw_held_out(job, config.finetune, 0)):
        parts = parts_of(job, draws, place)
        shown = [own.ids[row] for own, part in parts for row in part.rows.ravel()]
        assert sorted(shown) == sorted(job.ids[row] for row in draws.rows.ravel())
        assert all(own.captions == tuple(f"a {name}" for name in own.ids) for own, _ in parts)
        assert sum(part.uniform.size for _, part in parts) == draws.uniform.size


def test_an_adapter_is_the_same_alone_and_packed(room, tmp_path):
    config = room.config(steps=4, accumulation=2)
    packed = in_proportion(room.pack(config, tmp_path / "packed"), [TALL, WIDE, SQUARE])
    assert train_pack(packed, quiet) == {}
    alone = in_proportion(room.pack(config, tmp_path / "alone", ["0-1"]), [TALL, WIDE, SQUARE])
    assert train_pack(alone, quiet) == {}
    assert_same(weights(tmp_path / "packed", "0-1"), weights(tmp_path / "alone", "0-1"))
    squares = room.pack(config, tmp_path / "squares", ["0-1"])
    assert train_pack(squares, quiet) == {}
    one, other = (weights(tmp_path / name, "0-1") for name in ("alone", "squares"))
    assert any((one[key] != other[key]).any() for key in one)
    losses = json.loads((tmp_path / "packed/0-1/losses.json").read_text())
    assert len(losses) == 4 and all(loss > 0 for loss in losses)
    assert not any((tmp_path / "packed/.encoded").iterdir()), "forgotten at the end"


def test_an_adapter_is_the_same_after_a_resume_in_another_pack(room, tmp_path, monkeypatch):
    config = room.config(steps=4)
    sizes = [TALL, SQUARE]
    train_pack(in_proportion(room.pack(config, tmp_path / "through"), sizes), quiet)
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train_pack(in_proportion(room.pack(config, tmp_path / "cut", ["0-0", "0-1"]), sizes), quiet)
    monkeypatch.undo()
    again = in_proportion(room.pack(config, tmp_path / "cut", ["0-1", "3-0"]), sizes)
    assert train_pack(again, quiet) == {}
    for name in ("0-1", "3-0"):
        assert_same(weights(tmp_path / "through", name), weights(tmp_path / "cut", name))


def test_images_of_one_size_are_one_phase_and_a_square_is_what_it_was(room, tmp_path):
    """Sizes that are all the base's own change nothing, bit for bit."""
    config = room.config()
    train_pack(room.pack(config, tmp_path / "plain", ["3-0"]), quiet)
    train_pack(in_proportion(room.pack(config, tmp_path / "sized", ["3-0"]), [SQUARE]), quiet)
    one, other = (weights(tmp_path / name, "3-0") for name in ("plain", "sized"))
    assert all((one[key] == other[key]).all() for key in one)


def test_a_step_takes_adapters_of_one_size_together(room, tmp_path):
    config = room.config(steps=6)
    pack = in_proportion(room.pack(config, tmp_path, ["0-0", "3-0"]), [TALL, WIDE])
    loop = start(pack, pack.jobs)
    assert training._admit(loop, list(pack.jobs)) == {}
    _, ahead = training.turns(loop)
    for turns in ahead:
        shapes = [tuple(turn.phase.moments.shape[3:]) for turn in turns]
        assert len({*shapes}) == len(shapes) and sum(len(t.learners) for t in turns) == 2
        for turn in turns:
            batch = turn.phase.noised(turn.first, 0, loop.denoiser)
            assert batch.x.shape[2:] in {(10, 6), (6, 10)} and len(batch.x) == 2 * len(
                turn.learners
            )


def test_held_out_images_are_measured_at_their_own_sizes(room, tmp_path):
    config = room.config(steps=4, patience=5, evaluate_steps=2, holdout=0.5)
    pack = in_proportion(room.pack(config, tmp_path, ["3-0"]), [TALL, WIDE])
    loop = start(pack, pack.jobs)
    assert training._admit(loop, list(pack.jobs)) == {}
    (learner,) = loop.learners
    shapes = {tuple(part.moments.shape[3:]) for part in learner.held_out}
    assert shapes == {(10, 6), (6, 10)}
    training._evaluate(loop, loop.learners)
    assert 0 < learner.best_loss < np.inf
