"""Training a pack of adapters together: pack -> phases -> step -> losses.

Framework-free: it is given what to train and where to keep it, and calls `report`. As many adapters
as fit train at once, each in a slot; one that is done leaves its slot to the next. The loss is the
sum over adapters of each adapter's own mean; clipping, learning rate, loss scale, optimizer state
and random numbers belong to each adapter alone, so packing changes no result (tests/finetune).

Shape suffixes: S slots, P training adapters, B rows of a micro-batch, [C, h, w] latents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from raysynth.adapters.record import read_adapter
from raysynth.adapters.rows import clip_rows
from raysynth.errors import RaysynthError
from raysynth.finetune.engines import build_trainee, precision_of
from raysynth.finetune.entering import enter, forget
from raysynth.finetune.experts import expanded, next_of
from raysynth.finetune.jobs import Job
from raysynth.finetune.kept_previews import keep
from raysynth.finetune.learner import (
    Learner,
    at_the_end,
    ema_decay,
    finish,
    learning_rate_factor,
    save_checkpoint,
)
from raysynth.finetune.loop import Loop, averaged, of_slot, route
from raysynth.finetune.memory import fit_slots
from raysynth.finetune.optimizer import Steps
from raysynth.finetune.packs import Pack, Report, unheard
from raysynth.finetune.phase import Phase
from raysynth.finetune.previews import drawn
from raysynth.finetune.prior import draw_priors
from raysynth.finetune.scaling import LossScale, accelerator_of
from raysynth.finetune.settings import OBJECTIVES
from raysynth.finetune.term import terms_of
from raysynth.finetune.turns import Turn, held_out_turns, turns_of
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
        loop = start(pack, queue)
        report = partial(_tell, report, loop)
        while True:
            if queue:
                report({}, failed, doing="encoding images and prompts")
            failed |= _admit(loop, queue)
            if not loop.learners:
                break
            if loop.laid is None:
                report({}, failed, doing="the first step")
            _run(loop, partial(report, failed=failed))
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
        parts=torch.zeros(0, 0, device=device),
    )


def step(loop: Loop, turns: Sequence[Turn], number: int) -> Tensor:
    """One optimizer step of every learner; returns their losses [P], without waiting for them."""
    settings, rows = loop.pack.settings, loop.trainee.rows
    falls = loop.optimizer.part.falls
    for learner in loop.learners:
        factor = learning_rate_factor(learner.done + number, learner.job.steps, falls)
        loop.optimizer.set_rate(learner.slot, learner.job.learning_rate * factor)
    rows.gradients.zero_()
    total = torch.zeros(len(loop.learners), device=rows.values.device)
    parts = torch.zeros(len(loop.learners), len(loop.terms), device=rows.values.device)
    for turn in turns:
        take(loop, turn)
        own = _passed(loop, turn)
        total[turn.places], parts[turn.places] = own, loop.parts / settings.accumulation
        loop.alive[turn.slots] &= own.isfinite()
    loop.parts = parts
    rows.gradients.div_(loop.scale.values[:, None] * settings.accumulation)
    finite = clip_rows(rows.gradients, settings.max_grad_norm)
    with loop.scale.skipping(finite, rows):
        loop.optimizer.step()
    loop.alive &= loop.scale.tolerates(finite)
    if loop.average is not None:
        share = torch.zeros(loop.slots, 1)
        for learner in loop.learners:
            share[learner.slot] = 1 - ema_decay(
                learner.done + number + 1, loop.pack.training.budget.ema
            )
        loop.average.lerp_(rows.values, share.to(total.device))
    return total


def take(loop: Loop, turn: Turn) -> None:
    """The batches that come next are a turn's."""
    if loop.laid is not turn.phase:
        route(loop, turn.phase, turn.learners)
        loop.laid = turn.phase


def _passed(loop: Loop, turn: Turn) -> Tensor:
    """Gradients of a turn's learners, added to what there is; [P] their losses."""
    accumulation, device = loop.pack.settings.accumulation, loop.trainee.rows.values.device
    loop.parts = torch.zeros(len(turn.learners), len(loop.terms), device=device)
    total = torch.zeros(len(turn.learners), device=device)
    for micro in range(accumulation):
        losses_P = losses(loop, turn.phase, turn.first + micro)
        loop.accelerator.backward((losses_P * loop.scale.values[turn.slots]).sum())
        total += losses_P.detach() / accumulation
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
            loop.learners.append(enter(loop, job, free[0]))
            free.pop(0)
        except (RaysynthError, OSError, ValueError) as error:
            failed[job.name] = f"{type(error).__name__}: {error}"
    loop.learners.sort(key=lambda learner: learner.slot)
    return failed


def turns(loop: Loop) -> tuple[int, Iterator[list[Turn]]]:
    """Steps until the next event, and the turns of each of them."""
    settings, device = loop.pack.settings, loop.alive.device
    steps = min(learner.until_event(settings) for learner in loop.learners)
    return steps, turns_of(loop.learners, steps, settings.accumulation, device, loop.laid)


def _run(loop: Loop, report: Callable[[dict[str, int]], None]) -> None:
    """All steps until an event; losses come to the host now and then, not at every step."""
    steps, ahead = turns(loop)
    waiting: list[Tensor] = []
    apart: list[Tensor] = []
    said = time.monotonic()
    for number, own in enumerate(ahead):
        waiting.append(step(loop, own, number))
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
            forget(loop, learner.job)
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
    """Held-out losses of some learners, a batch for each size; each remembers its best weights."""
    found = [0.0] * len(learners)
    with averaged(loop) if learners else nullcontext():
        for phase, places, shares in held_out_turns(learners):
            route(loop, phase, [learners[place] for place in places])
            measured = losses(replace(loop, terms=()), phase, 0).tolist()
            for place, share, loss in zip(places, shares, measured, strict=True):
                found[place] += share * loss
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
