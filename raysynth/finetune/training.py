"""Training a pack of adapters together: pack -> phases -> step -> losses.

Framework-free: it is given what to train and where to keep it, and calls `report`. As many adapters
as fit train at once, each in a slot; one that is done leaves its slot to the next. The loss is the
sum over adapters of each adapter's own mean; clipping, learning rate, loss scale, optimizer state
and random numbers belong to each adapter alone, so packing changes no result (tests/finetune).

Shape suffixes: S slots, P training adapters, B rows of a micro-batch, [C, h, w] latents.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from raysynth.adapters.record import read_adapter
from raysynth.adapters.rows import clip_rows
from raysynth.errors import RaysynthError
from raysynth.finetune.draws import Draws, draw, draw_held_out, held_out_rows, start_dice
from raysynth.finetune.engines import build_trainee, precision_of
from raysynth.finetune.experts import expanded, next_of, within
from raysynth.finetune.jobs import Job
from raysynth.finetune.kept import Kept
from raysynth.finetune.kept_previews import keep
from raysynth.finetune.learner import (
    Learner,
    at_the_end,
    ema_decay,
    finish,
    learning_rate_factor,
    resume,
    save_checkpoint,
)
from raysynth.finetune.loop import Loop, averaged, of_slot, route
from raysynth.finetune.material import Material, prepare
from raysynth.finetune.memory import fit_slots
from raysynth.finetune.objective import OfImages
from raysynth.finetune.optimizer import Steps
from raysynth.finetune.packs import Pack, Report, unheard
from raysynth.finetune.phase import Phase, Row, lay_out
from raysynth.finetune.previews import drawn
from raysynth.finetune.prior import add_prior, draw_priors
from raysynth.finetune.scaling import LossScale, accelerator_of
from raysynth.finetune.settings import OBJECTIVES
from raysynth.finetune.term import Beginning, terms_of
from raysynth.metrics import ADAPTER_LOSS, put
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser

REPORT_SECONDS = 1.0


def train_pack(pack: Pack, report: Report = unheard) -> dict[str, str]:
    """Train what is not complete of a pack; go on from checkpoints.

    Returns the reason of every adapter that failed. The others' folders are complete.
    """
    asked = expanded(pack.jobs, pack.settings)
    queue = [job for job in asked if read_adapter(pack.folder(job)) is None]
    failed: dict[str, str] = {}
    if queue:
        report({}, {}, doing=_beginning(pack))
        loop, phase = start(pack, queue), None
        report = partial(_tell, report, loop)
        while True:
            if queue:
                report({}, failed, doing="encoding images and prompts")
            failed |= _admit(loop, queue)
            if not loop.learners:
                break
            if phase is None:
                report({}, failed, doing="the first step")
            phase = _next_phase(loop, phase)
            _run(loop, phase, partial(report, failed=failed))
            done = {learner.job.name: learner.done for learner in loop.learners}
            losses = {learner.job.name: at_the_end(learner.losses) for learner in loop.learners}
            for name, loss in losses.items():
                put(ADAPTER_LOSS, loss, adapter=name)
            seen = _preview(loop)
            failed |= _settle(loop)
            report(done, failed, losses=losses, previews=seen)
        failed |= {job.name: f"{job.parent} is not there to go on from" for job in queue}
    report({}, failed)
    return failed


def _beginning(pack: Pack) -> str:
    """What `start` does, for people: seconds of a small base, minutes of a large one."""
    prior = "drawing prior images, " if pack.training.budget.prior_weight else ""
    return f"{prior}loading the base model and measuring a step"


def _tell(report: Report, loop: Loop, done: dict[str, int], failed: Any, **more: Any) -> None:
    report(done, failed, "; ".join([str(loop.fit), *loop.notes]), **more)


def start(pack: Pack, jobs: list[Job]) -> Loop:
    """A worker's training with no adapter in it yet, and as many slots as jobs and memory allow."""
    settings, budget = pack.settings, pack.training.budget
    if budget.prior_weight:
        draw_priors(pack, jobs)
    base = replace(load_base(pack.base, ("vae", "text", "scheduler")), live=settings.text_encoder)
    precision = precision_of(settings, pack.base)
    accelerator = accelerator_of(precision, base.device.type == "cpu")
    trainee, fit = fit_slots(pack, jobs, base, accelerator, partial(build_trainee, pack))
    slots, device = len(trainee.rows.values), trainee.rows.values.device
    optimizer = Steps.of(trainee.rows.parameters, settings)
    for row in trainee.rows.parameters:
        row.grad = None
    return Loop(
        pack=pack,
        base=base,
        trainee=trainee,
        fit=fit,
        objective=pack.objective or OBJECTIVES[settings.objective.name],
        knobs=settings.objective.knobs(OBJECTIVES),
        terms=terms_of(settings),
        denoiser=Denoiser(base, trainee.unet, accelerator.autocast),
        accelerator=accelerator,
        optimizer=optimizer,
        scale=LossScale.of(precision, slots, device),
        alive=torch.ones(slots, dtype=torch.bool, device=device),
        average=trainee.rows.values.clone() if budget.ema else None,
        active=torch.arange(0, device=device),
        parts=torch.zeros(0, 0, device=device),
    )


def step(loop: Loop, phase: Phase, number: int) -> Tensor:
    """One optimizer step of every learner; returns their losses [P], without waiting for them."""
    settings, rows = loop.pack.settings, loop.trainee.rows
    falls = loop.optimizer.part.falls
    for learner in loop.learners:
        factor = learning_rate_factor(learner.done + number, learner.job.steps, falls)
        loop.optimizer.set_rate(learner.slot, learner.job.learning_rate * factor)
    rows.gradients.zero_()
    total = torch.zeros(len(loop.active), device=rows.values.device)
    loop.parts = torch.zeros(len(loop.active), len(loop.terms), device=rows.values.device)
    for micro in range(settings.accumulation):
        losses_P = losses(loop, phase, number * settings.accumulation + micro)
        loop.accelerator.backward((losses_P * loop.scale.values[loop.active]).sum())
        total += losses_P.detach() / settings.accumulation
    loop.parts /= settings.accumulation
    rows.gradients.div_(loop.scale.values[:, None] * settings.accumulation)
    finite = clip_rows(rows.gradients, settings.max_grad_norm)
    with loop.scale.skipping(finite, rows):
        loop.optimizer.step()
    loop.alive &= loop.scale.tolerates(finite)
    loop.alive[loop.active] &= total.isfinite()
    if loop.average is not None:
        share = torch.zeros(loop.slots, 1)
        for learner in loop.learners:
            share[learner.slot] = 1 - ema_decay(
                learner.done + number + 1, loop.pack.training.budget.ema
            )
        loop.average.lerp_(rows.values, share.to(total.device))
    return total


def losses(loop: Loop, phase: Phase, micro: int) -> Tensor:
    """[P] loss of each adapter on a micro-batch of the phase; adds its terms to `loop.parts`."""
    offset = loop.pack.settings.noise_offset
    batch = phase.noised(micro, loop.pack.seed, loop.denoiser, offset)
    error_B = loop.objective.losses(batch, loop.denoiser, loop.knobs)
    for number, term in enumerate(loop.terms):
        added_B = term(batch)
        loop.parts[:, number] += _per_adapter(phase, added_B.detach())
        error_B = error_B + added_B
    return _per_adapter(phase, error_B)


def _per_adapter(phase: Phase, values_B: Tensor) -> Tensor:
    """[P] weighted sums of the rows."""
    # Not a matrix product: a row that is not finite must not reach its neighbours' sums.
    return torch.where(phase.weights > 0, phase.weights * values_B, 0.0).sum(1)


def _admit(loop: Loop, queue: list[Job]) -> dict[str, str]:
    """Put the next jobs into free slots; a job whose images or prompts cannot be used fails."""
    failed = {}
    taken = {learner.slot for learner in loop.learners}
    free = [slot for slot in range(loop.slots) if slot not in taken]
    while free and (job := next_of(queue, loop.pack.origin)):
        queue.remove(job)
        try:
            loop.learners.append(_enter(loop, job, free[0]))
            free.pop(0)
        except (RaysynthError, OSError, ValueError) as error:
            failed[job.name] = f"{type(error).__name__}: {error}"
    loop.learners.sort(key=lambda learner: learner.slot)
    return failed


def _enter(loop: Loop, job: Job, slot: int) -> Learner:
    pack, settings, seed = loop.pack, loop.pack.settings, loop.pack.seed
    material = _prepare(loop, job, draw(job, settings, seed), job.name)
    held_out = None
    if len(held_out_rows(job, settings, seed)):
        held_out = _prepare(loop, job, draw_held_out(job, settings, seed), held_out_name(job))
    with torch.no_grad():
        loop.trainee.enter(slot, job, start_dice(job, seed))
        start = Beginning(job, pack.groups, seed, loop.base, partial(of_slot, loop, slot))
        for term in loop.terms:  # before a checkpoint is read: the weights are the base's
            material = term.extra(material, start)
        if job.parent:
            loop.trainee.load(slot, f"{pack.origin}/{job.parent}")
    if loop.pack.training.budget.prior_weight:
        material = add_prior(material, job, loop.base, pack)
    learner = Learner(job, slot, material, held_out)
    loop.alive[slot] = True
    loop.scale.reset(slot)
    rows = loop.trainee.rows
    if why := resume(learner, pack.folder(job), rows, loop.average, loop.optimizer):
        loop.notes.append(why)
    return learner


def kept_of(pack: Pack) -> Kept:
    """Where what is encoded is kept."""
    return Kept(pack.work, pack.base, pack.settings.text_encoder)


def held_out_name(job: Job) -> str:
    """What is kept of a job's held-out images."""
    return f"{job.name}.held_out"


def _prepare(loop: Loop, job: Job, draws: Draws, name: str) -> Material:
    """What the loss reads of a job's draws; `name`: of what is kept of them."""
    base, pack, about = loop.base, loop.pack, None
    if isinstance(loop.objective, OfImages):
        asked = partial(loop.objective.of_images, job=job, base=base, real=pack.real)
        about = partial(asked, seed=pack.seed, knobs=loop.knobs)
    uniform = within(draws.uniform, job, pack.settings, base.prediction)
    material = prepare(
        job, replace(draws, uniform=uniform), base, pack.real, kept_of(pack), name, about
    )
    return loop.objective.extra(material, job, base, pack.seed, loop.knobs)


def _next_phase(loop: Loop, before: Phase | None) -> Phase:
    settings = loop.pack.settings
    steps = min(learner.until_event(settings) for learner in loop.learners)
    rows = [Row(x.job, x.material, x.done * settings.accumulation) for x in loop.learners]
    return lay_out(rows, steps * settings.accumulation, before)


def _run(loop: Loop, phase: Phase, report: Callable[[dict[str, int]], None]) -> None:
    """All steps of a phase; the losses come to the host now and then, not at every step."""
    route(loop, phase, loop.learners)
    slots = [learner.slot for learner in loop.learners]
    loop.active = torch.tensor(slots, device=loop.alive.device)
    steps = len(phase.entries) // loop.pack.settings.accumulation
    waiting: list[Tensor] = []
    apart: list[Tensor] = []
    said = time.monotonic()
    for number in range(steps):
        waiting.append(step(loop, phase, number))
        apart.append(loop.parts)
        if time.monotonic() - said > REPORT_SECONDS:
            said = time.monotonic()
            report({learner.job.name: learner.done + number + 1 for learner in loop.learners})
    for learner, curve in zip(loop.learners, torch.stack(waiting, 1).tolist(), strict=True):
        learner.losses += curve
        learner.done += steps
    if loop.terms:
        for learner, told in zip(loop.learners, torch.stack(apart, 1).tolist(), strict=True):
            learner.terms += told


def _settle(loop: Loop) -> dict[str, str]:
    """Dismiss who failed, evaluate who is due, finish who is done, save the others."""
    settings, pack, rows = loop.pack.settings, loop.pack, loop.trainee.rows
    failed, leaving = {}, []
    sound = torch.linalg.vector_norm(rows.values, torch.inf, dim=1).isfinite()
    alive = (loop.alive & sound).tolist()
    for learner in loop.learners:
        if not alive[learner.slot]:
            failed[learner.job.name] = (
                f"loss, gradient or weights not finite by step {learner.done}; expected finite "
                "ones. Fix: lower finetune.learning_rate, or take finetune.precision=float32"
            )
    staying = [learner for learner in loop.learners if learner.job.name not in failed]
    _evaluate(loop, [x for x in staying if x.held_out and x.due(settings)])
    for learner in staying:
        folder = pack.folder(learner.job)
        if learner.done >= learner.job.steps or learner.stale(settings):
            finish(learner, folder, pack, loop.trainee, loop.kept(learner.slot))
            kept_of(pack).forget([learner.job.name, held_out_name(learner.job)])
            leaving.append(learner)
        elif learner.done % settings.checkpoint_steps == 0:
            save_checkpoint(learner, folder, rows, loop.average, loop.optimizer)
    loop.learners = [learner for learner in staying if learner not in leaving]
    training = {learner.slot for learner in loop.learners}
    for slot, row in enumerate(rows.parameters):
        row.grad = rows.gradients[slot] if slot in training else None
    return failed


@torch.no_grad()
def _evaluate(loop: Loop, learners: list[Learner]) -> None:
    """Held-out losses of some learners, all in one batch; each remembers its best weights."""
    if not learners:
        return
    rows = [Row(x.job, x.held_out, 0) for x in learners if x.held_out is not None]
    phase = lay_out(rows, 1)
    with averaged(loop):
        route(loop, phase, learners)
        found = losses(replace(loop, terms=()), phase, 0).tolist()
        for learner, loss in zip(learners, found, strict=True):
            if loss < learner.best_loss:
                learner.best_loss, learner.best_step = loss, learner.done
                learner.best = loop.trainee.rows.values[learner.slot].clone()


@torch.no_grad()
def _preview(loop: Loop) -> list[str]:
    """Draw the previews that are due; names of their adapters."""
    every = loop.pack.settings.preview_steps
    due = [x for x in loop.learners if every and (x.done % every == 0 or x.done >= x.job.steps)]
    with averaged(loop) if due else nullcontext():
        for learner in due:
            denoise = partial(of_slot, loop, learner.slot)
            picture = drawn(learner, loop.base, denoise, loop.pack.seed)
            keep(loop.pack.folder(learner.job), learner.done, picture)
    return [learner.job.name for learner in due]
