"""The other prompts that terms show a training's images under, drawn ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from raysynth.finetune.draws import dice_of
from raysynth.finetune.jobs import Job
from raysynth.finetune.material import Material
from raysynth.finetune.term import Beginning
from raysynth.models.condition import Condition
from raysynth.models.family import Base

Among = Callable[[int, Sequence[int]], list[int]]
"""Own group, groups that the model speaks for -> those of them that may be drawn."""


def with_partners(material: Material, start: Beginning, name: str, among: Among) -> Material:
    """The material with another group's prompt for every draw, uniformly drawn, in `also[name]`.

    Draws without a prompt, and those whose group has nobody to be compared with, keep their own.
    """
    job, spoken = start.job, material.spoken.cpu().numpy()
    texts, row_of = all_texts(material, job, start.base)
    uniform = dice_of(job, start.seed, name).random(spoken.shape)
    other = spoken.copy()
    for group in sorted(job.prompts):
        mine = spoken == row_of[group]
        if rows := [row_of[g] for g in among(group, list(row_of))]:
            other[mine] = np.array(rows)[(uniform[mine] * len(rows)).astype(np.int64)]
    drawn = torch.from_numpy(other).to(material.spoken.device)
    return replace(material, texts=texts, also={**material.also, name: drawn})


def all_texts(material: Material, job: Job, base: Base) -> tuple[Condition, dict[int, int]]:
    """What the prompts of all groups say that the model speaks for, and each one's row of it.

    The material's own rows come first, then those of groups without images.
    """
    order, unseen = sorted(job.prompts), sorted(job.unseen)
    row_of = {group: row for row, group in enumerate(order)}
    if not unseen:
        return material.texts, row_of
    said = base.condition([job.unseen[g] for g in unseen])
    row_of |= {g: len(material.texts) + number for number, g in enumerate(unseen)}
    return Condition.cat([material.texts, said]), row_of


def distances(
    material: Material, start: Beginning, name: str, levels: Sequence[float], most: int
) -> torch.Tensor:
    """[len(levels)] mean squared distance of what the base says under the own and the other prompt.

    Of the first `most` draws that have another (`with_partners`), at each share of the noise
    schedule; zeros where there are none.
    """
    other, spoken = material.also[name].flatten(), material.spoken.flatten()
    draws = (other != spoken).nonzero().flatten()[:most]
    prediction, device = start.base.prediction, material.moments.device
    found = torch.zeros(len(levels), device=device)
    if not len(draws):
        return found
    clean = material.moments[material.entries.flatten()[draws], 0].float()
    dice = dice_of(start.job, start.seed, f"{name}/reference")
    for number, level in enumerate(levels):
        noise = torch.from_numpy(dice.standard_normal(clean.shape, np.float32)).to(device)
        timestep = prediction.at(torch.full((len(draws),), level, device=device))
        noisy, _ = prediction.noised(clean, noise, timestep)
        for rows in torch.arange(len(draws), device=device).split(start.job.batch):
            own, sister = (
                start.denoise(noisy[rows], timestep[rows], material.texts.take(said[draws[rows]]))
                for said in (spoken, other)
            )
            apart = (own.raw - sister.raw).square().flatten(1).mean(1)
            found[number] += apart.sum() / len(draws)
    return found
