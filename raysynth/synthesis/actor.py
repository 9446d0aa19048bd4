"""The generating actor: specs in, scored pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raysynth.config import Config
from raysynth.groups import Groups
from raysynth.models.device import use_threads
from raysynth.models.loading import encode_prompts, load_base, load_clip
from raysynth.prompts import spoken
from raysynth.synthesis.banks import open_bank
from raysynth.synthesis.denoise import decode, denoise, draw_noise, latent_shape
from raysynth.synthesis.score import ClipScorer
from raysynth.synthesis.solver import build_solver


@dataclass(frozen=True)
class Task:
    """What every generating actor is told once; specs say the rest."""

    config: Config
    groups: Groups
    adapters: str
    """The fine-tuning stage's folder or URI."""
    names: tuple[str, ...]
    """Adapters that the specs ask for."""
    centroids: np.ndarray
    """[G, D] CLIP centroids of the real groups."""


class ImageGenerator:
    """Base model, adapters and prompts' text states in memory; rows of specs to pixels."""

    def __init__(self, task: Task) -> None:
        """Load the base model once and all adapters onto it."""
        config = task.config
        self.base = load_base(config.base)
        self.bank = open_bank(self.base.unet, task.adapters, task.names, config.finetune)
        self.solver = build_solver(config.synthesis.solver, self.base.scheduler)
        self.guidance, self.steps = config.synthesis.guidance_scale, config.synthesis.steps
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
        images: np.ndarray | None = None
        for rows in self.bank.parts(adapters):
            part = self._together(
                *([v[r] for r in rows] for v in (prompts, negatives, adapters, seeds))
            )
            if images is None:
                images = np.empty((len(seeds), *part.shape[1:]), np.uint8)
            images[rows] = part
        assert images is not None, "an empty batch has no images"
        return images

    def _together(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        adapters: Sequence[str],
        seeds: Sequence[int],
    ) -> np.ndarray:
        guided = self.guidance > 1
        noise, generators = draw_noise(seeds, self.shape)
        states = self._text([*negatives, *prompts] if guided else prompts)
        self.bank.use(adapters, copies=2 if guided else 1)
        latents = denoise(
            self.base, self.solver, noise, generators, states, self.guidance, self.steps
        )
        return decode(self.base, latents)

    def _text(self, prompts: Sequence[str]) -> Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._states]
        if new:
            self._states.update(zip(new, encode_prompts(self.base, new), strict=True))
        return torch.stack([self._states[prompt] for prompt in prompts])


class Synthesizer:
    """One Ray Data actor: generates and scores, on one device.

    Generation and scoring share the actor: a second pool would load torch and hold a device a
    second time, and every image would travel between them.
    """

    def __init__(self, task: Task) -> None:
        """Load the generator, CLIP and the groups' targets."""
        use_threads(task.config.resources.cpus_per_worker)
        groups, prompts = task.groups, task.config.prompts
        self.generate = ImageGenerator(task)
        spoken_groups = [spoken(prompts, groups, g, token="") for g in range(groups.count)]
        self.score = ClipScorer(load_clip(task.config.base), spoken_groups, task.centroids)

    def __call__(self, specs: pa.Table) -> pa.Table:
        """[B] specs -> the same rows with raw `pixels` (side * side * 3 bytes) and CLIP scores."""
        columns = specs.select(["prompt", "negative_prompt", "adapter", "seed"]).to_pydict()
        images = self.generate(*columns.values())
        scores = self.score(images, specs["group"].to_numpy())
        return (
            specs.append_column("pixels", pa.array([image.tobytes() for image in images]))
            .append_column("clip_label", pa.array(scores.label))
            .append_column("clip_centroid", pa.array(scores.centroid))
            .append_column("clip_score", pa.array(scores.score))
        )
