"""Previews are drawn: some images of an adapter in training, of the same noise at every step.

Nothing of the training is touched: its random numbers are a function of adapter and step, those of
previews others (`draws.prior_dice`), and a training with previews ends in the same bits
(tests/finetune). Where they lie says `kept_previews`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysynth.finetune.draws import prior_dice
from raysynth.finetune.kept_previews import IMAGES
from raysynth.finetune.learner import Learner
from raysynth.finetune.material import heard
from raysynth.models.condition import Condition
from raysynth.models.family import Base
from raysynth.models.latents import decode
from raysynth.models.prediction import Predicted

STEPS, GUIDANCE = 8, 3.0
Denoise = Callable[[Tensor, Tensor, Condition], Predicted]


def drawn(learner: Learner, base: Base, denoise: Denoise, seed: int) -> NDArray[np.uint8]:
    """[height, IMAGES width, 3] images of an adapter as it is now, its groups or captions in turn.

    Deterministic DDIM (Song et al. 2021, eq. 12 with sigma = 0) over STEPS levels with
    classifier-free guidance; `denoise`: the adapter's network.
    """
    job, shape = learner.job, learner.material.moments.shape[2:]
    height, width = (positions * base.shape.factor for positions in shape[1:])
    own = [(job.group, caption) for caption in dict.fromkeys(job.captions)]
    spoken = own or sorted(job.prompts.items())
    asked = [spoken[number % len(spoken)] for number in range(IMAGES)]
    told = heard(base.at(height, width), job, [*[""] * IMAGES, *(prompt for _, prompt in asked)])
    dice = [prior_dice(group, number, seed) for number, (group, _) in enumerate(asked)]
    x = torch.stack([torch.randn(shape, generator=own) for own in dice]).to(base.device)
    shares = torch.linspace(1, 0, STEPS + 1, device=base.device)[:-1] * 0.999
    times = base.prediction.at(shares)
    for number, time in enumerate(times):
        said = denoise(torch.cat([x, x]), time.expand(2 * IMAGES), told)
        plain, asked_for = said.clean.chunk(2)
        clean = plain + GUIDANCE * (asked_for - plain)
        if number + 1 == len(times):
            x = clean
            break
        signal, spread = base.prediction.levels(time.expand(IMAGES))
        noise = (x - signal * clean) / spread
        signal, spread = base.prediction.levels(times[number + 1].expand(IMAGES))
        x = signal * clean + spread * noise
    return np.concatenate(list(decode(base, x)), 1)
