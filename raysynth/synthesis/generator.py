"""Images from specs on one device: base model, adapters and prompts' text states in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from raysynth.config import Config
from raysynth.models.loading import encode_prompts, load_base, round_weights
from raysynth.synthesis.banks import open_bank
from raysynth.synthesis.denoise import decode, denoise, draw_noise, latent_shape
from raysynth.synthesis.solver import build_solver


@dataclass(frozen=True)
class Part:
    """Rows of a batch that are denoised together, with all that the UNet needs of them."""

    rows: np.ndarray
    """[b] row numbers in the batch; a row may repeat, to fill a run."""
    adapters: list[str]
    noise: Tensor
    """[b, C, H, W] float32, on the CPU."""
    generators: list[torch.Generator]
    states: Tensor
    """[b, L, D] text states, or [2b, L, D] with guidance: the negative prompts' first."""


class ImageGenerator:
    """Rows of specs to pixels, in three steps: `prepare` needs no device to itself."""

    def __init__(self, config: Config, adapters: str, names: Sequence[str]) -> None:
        """Load the base model once and all adapters onto it.

        Parameters
        ----------
        adapters : the fine-tuning stage's folder or URI.
        names : adapters that the specs ask for.
        """
        self.base = load_base(config.base)
        round_weights(self.base.unet, self.base.dtype)
        self.bank = open_bank(self.base.unet, adapters, names, config.finetune)
        self.solver = build_solver(config.synthesis.solver, self.base.scheduler)
        self.guidance, self.steps = config.synthesis.guidance_scale, config.synthesis.steps
        self.decoded_at_once = config.synthesis.decode_batch_size
        self.shape = latent_shape(self.base, config.synthesis.image_size)
        self._states: dict[str, Tensor] = {}

    def __call__(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        adapters: Sequence[str],
        seeds: Sequence[int],
    ) -> np.ndarray:
        """[B, side, side, 3] uint8 images of B specs."""
        return self.decode(self.denoise(self.prepare(prompts, negatives, adapters, seeds)))

    def prepare(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        adapters: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Part]:
        """Noise and text states of B specs, cut into what is denoised together."""
        parts = []
        for rows in self.bank.parts(adapters):
            noise, generators = draw_noise([seeds[row] for row in rows], self.shape)
            spoken = [prompts[row] for row in rows]
            if self.guidance > 1:
                spoken = [*(negatives[row] for row in rows), *spoken]
            names = [adapters[row] for row in rows]
            parts.append(Part(rows, names, noise, generators, self._text(spoken)))
        return parts

    def denoise(self, parts: Sequence[Part]) -> Tensor:
        """[B, C, H, W] float32 latents, in the order of the specs; waits for the device."""
        order = np.concatenate([part.rows for part in parts])
        _, first = np.unique(order, return_index=True)
        latents = torch.cat([self._denoise(part) for part in parts])[first]
        if self.base.device.type != "cpu":
            torch.accelerator.synchronize(self.base.device)
        return latents

    def decode(self, latents: Tensor) -> np.ndarray:
        """[B, side, side, 3] uint8 images, a few at a time: the decoder needs the most memory."""
        return np.concatenate(
            [decode(self.base, some) for some in latents.split(self.decoded_at_once)]
        )

    def _denoise(self, part: Part) -> Tensor:
        unet = self.bank.use(part.adapters, copies=2 if self.guidance > 1 else 1)
        return denoise(
            replace(self.base, unet=unet),
            self.solver,
            part.noise,
            part.generators,
            part.states,
            self.guidance,
            self.steps,
        )

    def _text(self, prompts: Sequence[str]) -> Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._states]
        if new:
            self._states.update(zip(new, encode_prompts(self.base, new), strict=True))
        return torch.stack([self._states[prompt] for prompt in prompts])
