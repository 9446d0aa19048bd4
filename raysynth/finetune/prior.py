"""DreamBooth's prior preservation: images the base model itself gives for the class prompts.

Ruiz et al. 2023 (arXiv 2208.12242), section 3.2. Here a class prompt is a group's prompt without
the rare token; the images of a class are shared out over its groups. They stay latents.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from raysynth.finetune.draws import draw_prior, prior_dice
from raysynth.finetune.experts import within
from raysynth.finetune.jobs import Job
from raysynth.finetune.material import Material
from raysynth.finetune.packs import Pack
from raysynth.models.base import load_base
from raysynth.models.condition import Condition
from raysynth.models.family import Base
from raysynth.storage.files import make_folder, open_storage, write_atomic

STEPS = 20
GUIDANCE = 3.0
_BATCH = 32


def draw_priors(pack: Pack, jobs: Sequence[Job]) -> None:
    """Draw the prior images of every group that the jobs speak of and that has none yet.

    Beforehand, since the plain base's UNet is then needed no longer.
    """
    base = load_base(pack.base)
    for job in jobs:
        order = sorted(job.plain_prompts)
        for group in order:
            prior_latents(base, job, group, _each(pack, len(order)), pack)


def add_prior(material: Material, job: Job, base: Base, pack: Pack) -> Material:
    """The material with b prior images after the b own ones in every micro-batch."""
    order = sorted(job.plain_prompts)
    each = _each(pack, len(order))
    latents = torch.cat([prior_latents(base, job, g, each, pack) for g in order])
    moments = torch.stack([latents, torch.zeros_like(latents)], 1).half()
    texts = base.condition([job.plain_prompts[g] for g in order])
    rows, uniform = draw_prior(job, pack.settings, pack.seed, len(latents))
    uniform = within(uniform, job, pack.settings, base.prediction)
    place = torch.from_numpy(rows).to(base.device)
    spoken = place // each + len(material.texts)
    nothing = {n: v.new_zeros(len(latents), *v.shape[1:]) for n, v in material.images.items()}
    weight = pack.training.budget.prior_weight / rows.shape[1]
    return replace(
        material,
        moments=torch.cat([material.moments, moments]),
        texts=Condition.cat([material.texts, texts]),
        entries=torch.cat([material.entries, place + len(material.moments)], 1),
        spoken=torch.cat([material.spoken, spoken], 1),
        uniform=torch.cat([material.uniform, torch.from_numpy(uniform).to(base.device)], 1),
        weights=torch.cat([material.weights, torch.full(rows.shape[1:], weight)]),
        images={n: torch.cat([v, nothing[n]]) for n, v in material.images.items()},
        # What else an objective asks of them is asked of the class prompt itself.
        also={name: torch.cat([other, spoken], 1) for name, other in material.also.items()},
        values={
            name: torch.cat([value, torch.zeros_like(spoken, dtype=value.dtype)], 1)
            for name, value in material.values.items()
        },
    )


def _each(pack: Pack, groups: int) -> int:
    """Prior images of each group of a class."""
    return -(-pack.settings.prior_images // groups)


def prior_latents(base: Base, job: Job, group: int, count: int, pack: Pack) -> Tensor:
    """[count, C, h, w] scaled latents of a group's class prompt, drawn once per run."""
    path = f"{pack.work}/.prior/{group}.safetensors"
    storage, name = open_storage(path)
    with contextlib.suppress(OSError, KeyError, safetensors.SafetensorError):  # drawn again
        return safetensors.torch.load(storage.cat_file(name))["latents"].to(base.device)
    parts = []
    for chunk in np.array_split(np.arange(count), -(-count // _BATCH)):
        prompts = [job.plain_prompts[group]] * len(chunk)
        dice = [prior_dice(group, int(i), pack.seed) for i in chunk]
        parts.append(base.family.drawn(base, prompts, STEPS, GUIDANCE, dice))
    latents = torch.cat(parts)
    make_folder(path.rsplit("/", 1)[0])
    write_atomic(path, safetensors.torch.save({"latents": latents.cpu().contiguous()}))
    return latents
