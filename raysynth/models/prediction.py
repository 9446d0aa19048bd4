"""Noise and target by the scheduler's `prediction_type`.

Every function works on [B, C, H, W] latents and [B] timesteps on the scheduler's own scale
(0..num_train_timesteps), as the UNet takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raysynth.errors import ModelError

PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")


@dataclass(frozen=True)
class Objective:
    """What a base model was trained to predict, and on which noise schedule."""

    prediction: str
    timesteps: int
    """Number of training timesteps T, 1000 for Stable Diffusion."""
    alphas: Tensor | None
    """[T] cumulative alphas of the diffusion schedule; None for rectified flow."""

    def draw(self, uniform: Tensor) -> Tensor:
        """Timesteps of uniform numbers in (0, 1).

        Diffusion: uniform over 0..T-1 (Ho et al. 2020, algorithm 1). Rectified flow: T s with
        logit-normal s (Esser et al. 2024, section 3.1).
        """
        if self.alphas is None:
            return torch.sigmoid(torch.special.ndtri(uniform)) * self.timesteps
        return (uniform * self.timesteps).floor().clamp(max=self.timesteps - 1)

    def noised(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The UNet's noisy input and its target.

        Diffusion: x_t = sqrt(a) x_0 + sqrt(1-a) e (Ho et al. 2020, eq. 4) with target e, x_0, or
        v = sqrt(a) e - sqrt(1-a) x_0 (Salimans & Ho 2022, section 4). Rectified flow:
        x_s = (1-s) x_0 + s e with target e - x_0 (Liu et al. 2022, eq. 1).
        """
        if self.alphas is None:
            s = (timestep / self.timesteps)[:, None, None, None]
            return (1 - s) * clean + s * noise, noise - clean
        alpha = self.alphas.to(clean.device)[timestep.long()][:, None, None, None]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = signal * clean + spread * noise
        if self.prediction == "epsilon":
            return noisy, noise
        return noisy, clean if self.prediction == "sample" else signal * noise - spread * clean


def objective_of(scheduler: Any) -> Objective:
    """The objective that a diffusers scheduler's configuration names.

    Raises ModelError for a prediction type that no objective is known for.
    """
    prediction = scheduler.config.get("prediction_type", "epsilon")
    flow = prediction == "flow_prediction" or "FlowMatch" in type(scheduler).__name__
    if flow:
        return Objective("flow_prediction", scheduler.config.num_train_timesteps, None)
    if prediction not in PREDICTIONS:
        raise ModelError(
            f"base.name: its scheduler has prediction_type={prediction!r}; expected one of "
            f"{', '.join(PREDICTIONS)}. Fix: choose another base model"
        )
    alphas = scheduler.alphas_cumprod.float()
    return Objective(prediction, scheduler.config.num_train_timesteps, alphas)
