"""What a base model was trained to predict, and on which noise schedule.

Every function works on [B, C, H, W] latents and timesteps on the scheduler's own scale
(0..num_train_timesteps), [B] or one for all, as the network takes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from raysynth.errors import ModelError
from raysynth.models.scheduler import FLOW, kind_of_prediction, shift_of

PREDICTIONS = ("epsilon", "v_prediction", "sample", FLOW)


@dataclass(frozen=True)
class Prediction:
    """The kind of number that a network gives, and the schedule that ties it to the image."""

    kind: str
    """diffusers' name, one of `PREDICTIONS`."""
    timesteps: int
    """Number of training timesteps T, 1000 for Stable Diffusion."""
    alphas: Tensor | None
    """[T] cumulative alphas of the diffusion schedule; None for rectified flow."""
    shift: float = 1.0
    """Of rectified flow: how far levels are moved towards noise, see `scheduler.shift_of`."""

    def to(self, device: torch.device) -> Prediction:
        """The same with its schedule on a device, where `levels` reads it without waiting."""
        return self if self.alphas is None else replace(self, alphas=self.alphas.to(device))

    def draw(self, uniform: Tensor) -> Tensor:
        """Timesteps of uniform numbers in (0, 1).

        Diffusion: uniform over 0..T-1 (Ho et al. 2020, algorithm 1). Rectified flow: T s with
        logit-normal s, moved as the base's own levels are (Esser et al. 2024, sections 3.1, 5.3.2).
        """
        if self.alphas is None:
            share = torch.sigmoid(torch.special.ndtri(uniform))
            if self.shift != 1:
                share = self.shift * share / (1 + (self.shift - 1) * share)
            return self.at(share)
        return self.at(uniform)

    def at(self, share: Tensor) -> Tensor:
        """Timesteps at shares in (0, 1) of the noise schedule; those of diffusion are whole."""
        timestep = share * self.timesteps
        return timestep if self.alphas is None else timestep.floor().clamp(max=self.timesteps - 1)

    def levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, 1, 1] shares of image and noise in a noisy image.

        Diffusion: sqrt(a), sqrt(1-a). Rectified flow: 1-s, s.
        """
        if self.alphas is None:
            s = (timestep / self.timesteps).view(-1, 1, 1, 1)
            return 1 - s, s
        alpha = self.alphas.to(timestep.device)[timestep.long()].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def noise_to_signal(self, timestep: Tensor) -> Tensor:
        """[B] noise per image in a noisy image: sqrt((1-a) / a); of rectified flow s / (1-s)."""
        signal, spread = self.levels(timestep)
        return (spread / signal).flatten()

    def snr_db(self, timestep: Tensor) -> Tensor:
        """[B] signal-to-noise ratio in decibels, 20 log10 of image per noise."""
        return -20 * self.noise_to_signal(timestep).log10()

    def not_below(self, timestep: Tensor, ratio: Tensor) -> Tensor:
        """[B] timesteps, raised to where there is at least [B] `ratio` of noise per image."""
        if self.alphas is None:
            return torch.maximum(timestep, self.timesteps * ratio / (1 + ratio))
        known = ((1 - self.alphas) / self.alphas).sqrt().to(timestep.device)
        least = torch.searchsorted(known, ratio.to(known.dtype)).clamp(max=self.timesteps - 1)
        return torch.maximum(timestep, least.to(timestep.dtype))

    def noised(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The network's noisy input and its target.

        Diffusion: x_t = sqrt(a) x_0 + sqrt(1-a) e (Ho et al. 2020, eq. 4) with target e, x_0, or
        v = sqrt(a) e - sqrt(1-a) x_0 (Salimans & Ho 2022, section 4). Rectified flow:
        x_s = (1-s) x_0 + s e with target e - x_0 (Liu et al. 2022, eq. 1).
        """
        signal, spread = self.levels(timestep)
        noisy = signal * clean + spread * noise
        if self.alphas is None:
            return noisy, noise - clean
        if self.kind == "epsilon":
            return noisy, noise
        return noisy, clean if self.kind == "sample" else signal * noise - spread * clean


@dataclass(frozen=True)
class Predicted:
    """What a network said of noisy images, in whichever terms are asked for.

    The three are one: x = signal * clean + spread * noise ties them together, and each is computed
    when it is read.
    """

    prediction: Prediction
    x: Tensor
    """[B, C, H, W] float32 noisy images."""
    timestep: Tensor
    """[B], or one for all."""
    raw: Tensor
    """[B, C, H, W] float32, of the kind that the base predicts."""

    def parts(self, count: int) -> tuple[Predicted, ...]:
        """The batch cut into `count` equal parts; they share a timestep that is one for all."""
        times = self.timestep.chunk(count) if self.timestep.ndim else [self.timestep] * count
        each = zip(self.x.chunk(count), times, self.raw.chunk(count), strict=True)
        return tuple(Predicted(self.prediction, *part) for part in each)

    @cached_property
    def levels(self) -> tuple[Tensor, Tensor]:
        """Shares of image and noise, see `Prediction.levels`."""
        return self.prediction.levels(self.timestep.to(self.x.device))

    @cached_property
    def clean(self) -> Tensor:
        """[B, C, H, W] the image without noise, x_0."""
        signal, spread = self.levels
        kind = self.prediction.kind
        if kind == "sample":
            return self.raw
        if kind == "epsilon":
            return (self.x - spread * self.raw) / signal
        return (self.x if self.prediction.alphas is None else signal * self.x) - spread * self.raw

    @cached_property
    def noise(self) -> Tensor:
        """[B, C, H, W] the noise, e."""
        signal, spread = self.levels
        kind = self.prediction.kind
        if kind == "epsilon":
            return self.raw
        if kind == "sample":
            return (self.x - signal * self.raw) / spread
        return (self.x if self.prediction.alphas is None else spread * self.x) + signal * self.raw

    @cached_property
    def velocity(self) -> Tensor:
        """[B, C, H, W] v = sqrt(a) e - sqrt(1-a) x_0; of rectified flow e - x_0."""
        if self.prediction.kind in ("v_prediction", "flow_prediction"):
            return self.raw
        signal, spread = self.levels
        return signal * self.noise - spread * self.clean

    def moved(self, shift: Tensor) -> Predicted:
        """What a network says whose `clean` is further by [B, C, H, W] `shift`."""
        signal, spread = self.levels
        if self.prediction.kind == "sample":
            return replace(self, raw=self.raw + shift)
        share = signal / spread if self.prediction.kind == "epsilon" else 1 / spread
        return replace(self, raw=self.raw - share * shift)


def prediction_of(scheduler: Any) -> Prediction:
    """What a diffusers scheduler's configuration says that its base predicts.

    Raises ModelError for a prediction type that is not known here.
    """
    name, settings = type(scheduler).__name__, scheduler.config
    kind = kind_of_prediction(name, settings)
    if kind == FLOW:
        steps, shift = settings.num_train_timesteps, shift_of(name, settings)
        return Prediction(kind, steps, None, shift)
    if kind not in PREDICTIONS:
        raise ModelError(
            f"base.name: its scheduler has prediction_type={kind!r}; expected one of "
            f"{', '.join(PREDICTIONS)}. Fix: choose another base model"
        )
    return Prediction(kind, settings.num_train_timesteps, scheduler.alphas_cumprod.float())
