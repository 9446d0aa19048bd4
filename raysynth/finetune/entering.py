"""How a job becomes a learner: what it draws, what of it is encoded, where its weights start."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from raysynth.finetune.draws import Draws, draw, draw_held_out, held_out_rows, start_dice
from raysynth.finetune.experts import within
from raysynth.finetune.jobs import Job
from raysynth.finetune.kept import Kept
from raysynth.finetune.learner import Learner, resume
from raysynth.finetune.loop import Loop, of_slot
from raysynth.finetune.material import Material, prepare
from raysynth.finetune.objective import OfImages
from raysynth.finetune.packs import Pack
from raysynth.finetune.prior import add_prior
from raysynth.finetune.sized import Places, Sized, parts_of, sized
from raysynth.finetune.term import Beginning
from raysynth.sides import Sides


def enter(loop: Loop, job: Job, slot: int) -> Learner:
    """Put a job into a slot, at its beginning or where its checkpoint is."""
    pack, settings, seed = loop.pack, loop.pack.settings, loop.pack.seed
    sizes, place = sized(job, loop.base.shape)
    draws = draw(job, settings, seed, place)
    parts = _prepared(loop, job, draws, sizes, place)
    held_out: tuple[Material, ...] = ()
    if len(held_out_rows(job, settings, seed)):
        measured = draw_held_out(job, settings, seed)
        held_out = _prepared(loop, job, measured, sizes, place, HELD_OUT)
    with torch.no_grad():
        loop.trainee.enter(slot, job, start_dice(job, seed))
        start = Beginning(job, pack.groups, seed, loop.base, partial(of_slot, loop, slot))
        for term in loop.terms:  # before a checkpoint is read: the weights are the base's
            parts = tuple(term.extra(part, start) for part in parts)
        if job.parent:
            loop.trainee.load(slot, f"{pack.origin}/{job.parent}")
    if pack.training.budget.prior_weight:
        parts = tuple(add_prior(part, job, loop.base, pack) for part in parts)
    _, order = np.unique(place[draws.rows[:, 0]], return_inverse=True)
    learner = Learner(job, slot, Sized(parts, order), held_out)
    loop.alive[slot] = True
    loop.scale.reset(slot)
    rows = loop.trainee.rows
    if why := resume(learner, pack.folder(job), rows, loop.average, loop.optimizer):
        loop.notes.append(why)
    return learner


HELD_OUT = ".held_out"


def forget(loop: Loop, job: Job) -> None:
    """Remove what is kept of a job that is done."""
    sizes, _ = sized(job, loop.base.shape)
    names = [_name(job, size, sizes, which) for size in sizes for which in ("", HELD_OUT)]
    _kept_of(loop.pack).forget(names)


def _kept_of(pack: Pack) -> Kept:
    """Where what is encoded is kept."""
    return Kept(pack.work, pack.base, pack.settings.text_encoder)


def _name(job: Job, size: Sides, sizes: tuple[Sides, ...], which: str) -> str:
    """What is kept of a job's images of a size."""
    told = f".{size[0]}x{size[1]}" if len(sizes) > 1 else ""
    return f"{job.name}{told}{which}"


def _prepared(
    loop: Loop,
    job: Job,
    draws: Draws,
    sizes: tuple[Sides, ...],
    place: Places,
    which: str = "",
) -> tuple[Material, ...]:
    """What the loss reads of a job's draws, of each size that is drawn."""
    if len(sizes) == 1:
        return (_material(loop, job, draws, sizes[0], _name(job, sizes[0], sizes, which)),)
    return tuple(
        _material(loop, own, drawn, size, _name(job, size, sizes, which))
        for size, (own, drawn) in zip(sizes, parts_of(job, draws, place), strict=True)
        if drawn.rows.size
    )


def _material(loop: Loop, job: Job, draws: Draws, size: Sides, name: str) -> Material:
    """The material of a job's images of one size; `name`: of what is kept of them."""
    pack, about = loop.pack, None
    base = loop.base if size == loop.base.size else loop.base.at(*size)
    if isinstance(loop.objective, OfImages):
        asked = partial(loop.objective.of_images, job=job, base=base, real=pack.real)
        about = partial(asked, seed=pack.seed, knobs=loop.knobs)
    uniform = within(draws.uniform, job, pack.settings, base.prediction)
    material = prepare(
        job, replace(draws, uniform=uniform), base, pack.real, _kept_of(pack), name, about
    )
    return loop.objective.extra(material, job, base, pack.seed, loop.knobs)
