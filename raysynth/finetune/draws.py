"""Every random choice of an adapter's training, drawn ahead from (run seed, group, cluster).

Because nothing depends on a worker, a neighbour or the number of restarts, an adapter comes out the
same alone, packed with others, or after a resume in another pack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysynth.finetune.jobs import SHARED, Job
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import prompt_dropout

_ROWS, _NOISE, _START, _PRIOR_IMAGE, _PRIOR_ROWS, _HELD_OUT, _OBJECTIVE, _PROBE = range(1, 9)
_OFFSET = 9
_NOBODY = -1
_EXPERTS = 2**20
"""Keys of experts begin here: no label is as large."""
_WITHOUT = 2**21
"""Those of models that forget a group: there are not as many experts."""
EVALUATION_ROWS = 32
"""Least rows of the batch on which early stopping measures."""


@dataclass(frozen=True)
class Draws:
    """[T, b] choices of T micro-batches of b images."""

    rows: np.ndarray
    """int64 position of the image in the job."""
    flips: np.ndarray
    """bool, mirrored left-right."""
    dropped: np.ndarray
    """bool, trained without a prompt."""
    uniform: np.ndarray
    """float32 in (0, 1): becomes the timestep."""


def draw(job: Job, config: FinetuneConfig, seed: int, place: np.ndarray | None = None) -> Draws:
    """All choices of a job; `seed` is the run's. Images that are held out are not drawn.

    `place`: [N] which of several sizes each image has, and so all images of a step; None: one.
    """
    rng = np.random.default_rng(_key(job, seed, _ROWS))
    shape = (job.steps * config.accumulation, job.batch)
    without = held_out_rows(job, config, seed)
    if place is None or len(np.unique(place)) == 1:
        rows = _draw_rows(job, shape, without, rng)
    else:
        rows = _draw_sizes(np.delete(np.arange(len(place)), without), place, shape, config, rng)
    flips = rng.random(shape) < (0.5 if config.flip else 0.0)
    dropped = rng.random(shape) < prompt_dropout(config.prompt_dropout, job.scope)
    uniform = rng.random(shape, dtype=np.float32).clip(1e-6, 1 - 1e-6)
    return Draws(rows, flips, dropped, uniform)


def held_out_rows(job: Job, config: FinetuneConfig, seed: int) -> np.ndarray:
    """[H] positions of the images that early stopping keeps from training.

    None when it is off, or where there is but one image, which is trained on.
    """
    if not config.patience or len(job.ids) < 2:
        return np.zeros(0, dtype=np.int64)
    rng = np.random.default_rng(_key(job, seed, _HELD_OUT))
    count = min(max(1, round(config.holdout * len(job.ids))), len(job.ids) - 1)
    return np.sort(rng.permutation(len(job.ids))[:count])


def draw_held_out(job: Job, config: FinetuneConfig, seed: int) -> Draws:
    """[1, H R] choices of the batch that early stopping measures on, the same at every evaluation.

    Every held-out image comes R times, at evenly spread timesteps, so that at least
    `EVALUATION_ROWS` rows make a loss that moves little by chance.
    """
    rows = held_out_rows(job, config, seed)
    repeated = np.tile(rows, -(-EVALUATION_ROWS // len(rows)))[None]
    uniform = (np.arange(repeated.size, dtype=np.float32) + 0.5)[None] / repeated.size
    off = np.zeros(repeated.shape, dtype=bool)
    return Draws(repeated, off, off, uniform)


def draw_prior(
    job: Job, config: FinetuneConfig, seed: int, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """[T, b] positions among the prior images, and [T, b] uniform numbers for their timesteps."""
    rng = np.random.default_rng(_key(job, seed, _PRIOR_ROWS))
    shape = (job.steps * config.accumulation, job.batch)
    rows = rng.integers(0, images, shape)
    return rows, rng.random(shape, dtype=np.float32).clip(1e-6, 1 - 1e-6)


def dice_of(job: Job, seed: int, use: str) -> np.random.Generator:
    """Random numbers for what an objective chooses for a job; `use`: a name for what."""
    name = int.from_bytes(use.encode(), "big")
    return np.random.default_rng([*_key(job, seed, _OBJECTIVE), name])


def start_dice(job: Job, seed: int) -> torch.Generator:
    """The random numbers that an adapter's matrices start from."""
    return _generator(_key(job, seed, _START))


def prior_dice(group: int, index: int, seed: int) -> torch.Generator:
    """The random numbers of one prior image."""
    return _generator([seed, _PRIOR_IMAGE, group, index])


def noise_of(job: Job, at: int, shape: tuple[int, ...], seed: int, probe: bool = False) -> Tensor:
    """float32 normal numbers of micro-batch number `at` of a job; `probe`: others than noise."""
    key = _key(job, seed, _PROBE if probe else _NOISE)
    return torch.randn(shape, generator=_generator([*key, at]))


def offset_of(job: Job, at: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """float32 normal numbers, one for each channel of each row of a micro-batch of a job."""
    return torch.randn(shape, generator=_generator([*_key(job, seed, _OFFSET), at]))


def _key(job: Job, seed: int, use: int) -> list[int]:
    several = [job.label + 1] if job.group == SHARED else []
    if job.group == SHARED and job.attribute != SHARED:
        several.append(job.attribute + 1)
    if job.bin >= 0:
        several.append(_EXPERTS + job.bin)
    if job.without >= 0:
        several.append(_WITHOUT + job.without)
    own = job.key or (job.group + 1, job.cluster + 1)
    return [seed, use, *own, *several]


def _generator(key: list[int]) -> torch.Generator:
    number = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(number >> np.uint64(1)))


def _draw_rows(
    job: Job,
    shape: tuple[int, int],
    without: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Image positions: every group walks through its own images in random order, again and again.

    Conflicting groups together fill a share of each micro-batch: the job's, or their share of
    the images where that is larger; within both halves groups take turns. What would then show a
    group's images more than `job.max_passes` times goes to the groups that have room.
    """
    group = np.array(job.groups)
    group[without] = _NOBODY
    slots = np.empty(shape, dtype=np.int64)
    weak = [g for g in job.conflicting if (group == g).any()]
    strong = [g for g in np.unique(group).tolist() if g not in (*weak, _NOBODY)]
    share = max(job.oversample, float(np.isin(group, weak).mean())) if weak else 0.0
    split = max(round(shape[1] * (share if strong else 1.0)), 1 if weak else 0)
    for part, members in ((slots[:, :split], weak), (slots[:, split:], strong)):
        if members:
            part[:] = np.resize(members, part.size).reshape(part.shape)
    slots = _bounded(slots, group[group != _NOBODY], job.max_passes)
    rows = np.empty(shape, dtype=np.int64)
    for g in np.unique(slots).tolist():
        places = slots == g
        rows[places] = _walk(np.flatnonzero(group == g), int(places.sum()), rng)
    return rows


def _draw_sizes(
    members: np.ndarray,
    place: np.ndarray,
    shape: tuple[int, int],
    config: FinetuneConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Image positions where all images of a step have one size; every image comes equally often.

    Sizes take turns evenly, with as many steps as they have images for, at least one. A size of
    fewer images than a batch has each of them several times in it, under other noise.
    """
    sizes, counts = np.unique(place[members], return_counts=True)
    steps = shape[0] // config.accumulation
    quota = steps * counts / counts.sum()
    given = np.floor(quota).astype(np.int64)
    given[np.argsort(given - quota, kind="stable")[: steps - given.sum()]] += 1
    for size in np.flatnonzero(given == 0)[: max(steps - len(sizes), 0)]:
        given[[size, int(given.argmax())]] += (1, -1)
    at = np.concatenate([(np.arange(n) + 0.5) / n for n in given if n])
    order = np.repeat(sizes, given)[np.argsort(at, kind="stable")]
    rows = np.empty(shape, dtype=np.int64)
    for size, own in zip(sizes, given, strict=True):
        length = own * config.accumulation * shape[1]
        turns = np.repeat(order == size, config.accumulation)
        rows[turns] = _walk(members[place[members] == size], length, rng).reshape(-1, shape[1])
    return rows


def _bounded(slots: np.ndarray, group: np.ndarray, passes: float) -> np.ndarray:
    """Slots in which no group has more than `passes` per image, evenly taken and evenly given.

    As they are where all groups together have not the room: `finetune.overrides` asked for it.
    """
    members, images = np.unique(group, return_counts=True)
    most = np.maximum(np.floor(passes * images), 1).astype(np.int64)
    given = (slots.reshape(-1, 1) == members).sum(0)
    over, room = np.maximum(given - most, 0), np.maximum(most - given, 0)
    if not over.any() or room.sum() < over.sum():
        return slots
    flat = slots.ravel().copy()
    free = np.sort(
        np.concatenate(
            [_spread(np.flatnonzero(flat == g), n) for g, n in zip(members, over, strict=True)]
        )
    )
    taken = np.diff(np.floor(np.cumsum([0, *room]) * (len(free) / room.sum()) + 1e-9)).astype(int)
    turns = np.concatenate([(np.arange(n) + 0.5) / n for n in taken if n])
    flat[free] = np.repeat(members, taken)[np.argsort(turns, kind="stable")]
    return flat.reshape(slots.shape)


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """`count` of the places, evenly spaced."""
    return places[((np.arange(count) + 0.5) * len(places) / max(1, count)).astype(np.int64)]


def _walk(members: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    passes = [rng.permutation(members) for _ in range(-(-length // len(members)))]
    return np.concatenate(passes)[:length]
