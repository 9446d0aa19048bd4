"""Training a pack of adapters together: pack -> train -> step -> losses.

Framework-free: it is given what to train and where to keep it, and calls `report`. The loss is the
sum over adapters of each adapter's own mean; clipping, learning rate, optimizer state and random
numbers belong to each adapter alone, so packing changes no result (tests/finetune).

Shape suffixes: P adapters, b images of an adapter's micro-batch, [C, h, w] latents.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from raysynth.config import Config
from raysynth.errors import RaysynthError
from raysynth.finetune.checkpoints import (
    Checkpoint,
    drop_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from raysynth.finetune.draws import draw, noise_of
from raysynth.finetune.engines import ENGINES, Trainee, precision_of
from raysynth.finetune.objective import Objective, objective_of
from raysynth.finetune.plan import Job, read_adapter, record_of, write_adapter
from raysynth.finetune.precompute import Material, prepare, stack
from raysynth.finetune.prior import add_prior
from raysynth.finetune.rows import clip_rows
from raysynth.groups import Groups
from raysynth.models.loading import load_base
from raysynth.runs import write_atomic

BETAS = (0.9, 0.99)
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
REPORT_SECONDS = 1.0


class Report(Protocol):
    """Is told the steps done per adapter, and the reasons of those that failed."""

    def __call__(self, done: dict[str, int], failed: dict[str, str]) -> None:  # noqa: D102
        ...


@dataclass(frozen=True)
class Pack:
    """What one worker trains: jobs that share a frozen base, and the run they belong to."""

    jobs: list[Job]
    config: Config
    groups: Groups
    real: str
    work: str

    def folder(self, job: Job) -> str:
        """Folder or URI of a job's adapter and checkpoints."""
        return f"{self.work}/{job.name}"


@dataclass
class Loop:
    """The state of a training; P jobs in step, each with its own count of steps."""

    pack: Pack
    jobs: list[Job]
    trainee: Trainee
    material: Material
    objective: Objective
    accelerator: Accelerator
    optimizer: Any
    done: list[int]
    losses: Tensor
    """[steps, P]."""
    alive: Tensor
    """[P] bool."""
    average: Tensor | None
    """[P, n] moving average of the weights."""


def train_pack(pack: Pack, report: Report) -> dict[str, str]:
    """Train what is not complete of a pack; go on from checkpoints.

    Returns the reason of every adapter that failed. The others' folders are complete.
    """
    todo = [job for job in pack.jobs if read_adapter(pack.folder(job)) is None]
    materials, objective, failed = _prepare_all(pack, todo)
    ready = [job for job in todo if job.name in materials]
    together = [ready] if pack.config.finetune.engine == "lora" else [[job] for job in ready]
    for jobs in together:
        if jobs:
            loop = start(pack, jobs, stack([materials[job.name] for job in jobs]), objective)
            failed |= train(loop, partial(report, failed=failed))
    report({}, failed)
    return failed


def start(pack: Pack, jobs: list[Job], material: Material, objective: Objective) -> Loop:
    """A training at its last checkpoints, or at its beginning."""
    settings = pack.config.finetune
    trainee = ENGINES[settings.engine](pack.config, jobs)
    device = trainee.rows.values.device
    accelerator = Accelerator(
        mixed_precision=precision_of(pack.config),
        gradient_accumulation_steps=settings.accumulation,
        cpu=device.type == "cpu",
        device_placement=False,
    )
    optimizer = torch.optim.AdamW(
        [{"params": [row]} for row in trainee.rows.parameters],
        lr=settings.learning_rate,
        betas=BETAS,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    loop = Loop(
        pack=pack,
        jobs=jobs,
        trainee=trainee,
        material=material,
        objective=objective,
        accelerator=accelerator,
        optimizer=accelerator.prepare(optimizer),
        done=[0] * len(jobs),
        losses=torch.zeros(settings.steps, len(jobs), device=device),
        alive=torch.ones(len(jobs), dtype=torch.bool, device=device),
        average=trainee.rows.values.clone() if settings.ema else None,
    )
    for position in range(len(jobs)):
        _resume(loop, position, optimizer)
    return loop


def train(loop: Loop, report: Callable[[dict[str, int]], None]) -> dict[str, str]:
    """Step until every adapter is done or has failed; save the former, name the latter."""
    settings = loop.pack.config.finetune
    failed: dict[str, str] = {}
    said = 0.0
    while _retire_finished(loop):
        step(loop)
        save = any(d % settings.checkpoint_steps == 0 and d < settings.steps for d in loop.done)
        if save or time.monotonic() - said > REPORT_SECONDS or max(loop.done) == settings.steps:
            failed |= _dismiss_failed(loop)
            if save:
                _save_checkpoints(loop, failed)
            said = time.monotonic()
            report({job.name: done for job, done in zip(loop.jobs, loop.done, strict=True)})
    failed |= _dismiss_failed(loop)
    for position, job in enumerate(loop.jobs):
        if job.name not in failed:
            _finish(loop, position)
    return failed


def step(loop: Loop) -> None:
    """One optimizer step of every adapter that is neither done nor dead."""
    settings, rows = loop.pack.config.finetune, loop.trainee.rows
    _set_learning_rates(loop)
    rows.gradients.zero_()
    total = torch.zeros(len(loop.jobs), device=rows.values.device)
    for micro in range(settings.accumulation):
        with loop.accelerator.accumulate():
            losses_P = losses(loop, micro)
            loop.accelerator.backward(losses_P.sum())
            total += losses_P.detach() / settings.accumulation
            if loop.accelerator.sync_gradients:
                loop.accelerator.unscale_gradients(loop.optimizer)
                loop.alive &= total.isfinite()
                loop.alive = clip_rows(rows.gradients, settings.max_grad_norm, loop.alive)
                loop.optimizer.step()
    positions = [p for p, done in enumerate(loop.done) if done < settings.steps]
    at = [loop.done[p] for p in positions]
    loop.losses[at, positions] = total[positions]
    for p in positions:
        loop.done[p] += 1
    if loop.average is not None:
        share = [0.0] * len(loop.jobs)
        for p in positions:
            share[p] = 1 - ema_decay(loop.done[p], settings.ema)
        loop.average.lerp_(rows.values, torch.tensor(share, device=total.device)[:, None])


def losses(loop: Loop, micro: int) -> Tensor:
    """[P] training loss of each adapter on its next micro-batch."""
    settings, material = loop.pack.config.finetune, loop.material
    count, batch = len(loop.jobs), settings.batch_size
    last = settings.steps - 1
    at = [min(done, last) * settings.accumulation + micro for done in loop.done]
    pick = (torch.tensor(at), torch.arange(count))
    entries_B = material.entries[pick].flatten()
    shape = (2, len(entries_B) // count, *material.moments.shape[2:])
    dice = noise_of(loop.jobs, at, shape, loop.pack.config.seed).to(material.moments.device)
    wobble, noise = (part.flatten(0, 1) for part in dice.unbind(1))
    mean, spread = material.moments[entries_B].float().unbind(1)
    timestep_B = loop.objective.draw(material.uniform[pick].flatten())
    noisy, target = loop.objective.noised(mean + spread * wobble, noise, timestep_B)
    states = material.texts[material.spoken[pick].flatten()]
    with loop.accelerator.autocast():
        predicted = loop.trainee.unet(noisy, timestep_B, states).sample
    error_Pb = (predicted.float() - target).square().flatten(1).mean(1).view(count, -1)
    prior = error_Pb[:, batch:].sum(1) * settings.prior_weight
    return (error_Pb[:, :batch].sum(1) + prior) / batch


def ema_decay(done: int, decay: float) -> float:
    """Decay of the weights' moving average; shorter at first, so that the start is forgotten."""
    return min(decay, (1 + done) / (10 + done))


def learning_rate_factor(done: int, steps: int) -> float:
    """Linear warm-up over the first tenth, then a half cosine to zero."""
    warm = max(1, round(steps * WARM_UP))
    if done < warm:
        return (done + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, steps - warm)))


def _prepare_all(
    pack: Pack, jobs: Sequence[Job]
) -> tuple[dict[str, Material], Objective, dict[str, str]]:
    """Materials of the jobs; a job whose images or prompts cannot be used fails alone."""
    config = pack.config
    drawn_from = ("unet",) if config.finetune.prior_weight else ()
    base = load_base(
        config.base, parts=("vae", "text_encoder", "tokenizer", "scheduler", *drawn_from)
    )
    materials: dict[str, Material] = {}
    failed: dict[str, str] = {}
    for job in jobs:
        try:
            draws = draw(job, config.finetune, config.seed)
            material = prepare(job, draws, base, pack.real)
            if config.finetune.prior_weight:
                material = add_prior(material, job, base, config, pack.work)
            materials[job.name] = material
        except (RaysynthError, OSError, ValueError) as error:
            failed[job.name] = f"{type(error).__name__}: {error}"
    return materials, objective_of(base.scheduler), failed


def _retire_finished(loop: Loop) -> bool:
    """Take adapters that are done out of the optimizer; whether any is left in it."""
    rows = loop.trainee.rows.parameters
    for row, done in zip(rows, loop.done, strict=True):
        if done >= loop.pack.config.finetune.steps:
            row.grad = None
    return any(row.grad is not None for row in rows)


def _set_learning_rates(loop: Loop) -> None:
    settings = loop.pack.config.finetune
    for group, done in zip(loop.optimizer.param_groups, loop.done, strict=True):
        group["lr"] = settings.learning_rate * learning_rate_factor(done, settings.steps)


def _dismiss_failed(loop: Loop) -> dict[str, str]:
    """Take dead adapters out of the optimizer; the reason of each."""
    failed = {}
    for position, alive in enumerate(loop.alive.tolist()):
        if not alive:
            loop.trainee.rows.parameters[position].grad = None
            failed[loop.jobs[position].name] = (
                f"loss or gradient not finite by step {loop.done[position]}; its weights were not "
                "stepped. Lower finetune.learning_rate, or take finetune.precision=float32"
            )
    return failed


def _resume(loop: Loop, position: int, optimizer: torch.optim.Optimizer) -> None:
    checkpoint = read_checkpoint(loop.pack.folder(loop.jobs[position]))
    if checkpoint is None:
        return
    rows = loop.trainee.rows
    device = rows.values.device
    rows.values[position] = checkpoint.weights.to(device)
    optimizer.state[rows.parameters[position]] = {
        "step": torch.tensor(float(checkpoint.step), device=device),
        "exp_avg": checkpoint.exp_avg.to(device),
        "exp_avg_sq": checkpoint.exp_avg_sq.to(device),
    }
    loop.done[position] = checkpoint.step
    loop.losses[: checkpoint.step, position] = checkpoint.losses.to(device)
    if loop.average is not None:
        loop.average[position] = checkpoint.average.to(device)


def _save_checkpoints(loop: Loop, failed: dict[str, str]) -> None:
    settings, rows = loop.pack.config.finetune, loop.trainee.rows
    for position, job in enumerate(loop.jobs):
        done = loop.done[position]
        if job.name in failed or done % settings.checkpoint_steps or done >= settings.steps:
            continue
        state = loop.optimizer.optimizer.state[rows.parameters[position]]
        average = torch.empty(0) if loop.average is None else loop.average[position]
        checkpoint = Checkpoint(
            step=done,
            weights=rows.values[position],
            exp_avg=state["exp_avg"],
            exp_avg_sq=state["exp_avg_sq"],
            average=average,
            losses=loop.losses[:done, position],
        )
        write_checkpoint(checkpoint, loop.pack.folder(job))


@torch.no_grad()
def _finish(loop: Loop, position: int) -> None:
    """Save an adapter, its loss curve and, last, its record."""
    job, pack = loop.jobs[position], loop.pack
    folder, curve = pack.folder(job), loop.losses[:, position].tolist()
    if loop.average is not None:
        loop.trainee.rows.values[position] = loop.average[position]
    loop.trainee.save(position, folder)
    write_atomic(f"{folder}/losses.json", json.dumps([round(v, 6) for v in curve]).encode())
    tail = curve[-max(1, len(curve) // 10) :]
    write_adapter(record_of(job, pack.config, pack.groups, sum(tail) / len(tail)), folder)
    drop_checkpoint(folder)
