"""Images from specs on one device: base model, adapters and prompts' conditions in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raysynth.adapters.banks import of_text, open_bank
from raysynth.finetune.experts import expert_at, levels_of, name_of, names_of
from raysynth.models.base import load_base
from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.latents import decode, encode, images_at_once
from raysynth.models.loading import round_weights
from raysynth.models.quantisation import is_quantised
from raysynth.storage.tables import decode_bytes
from raysynth.synthesis import fits, gaussian
from raysynth.synthesis.compiled import Compiler, can_compile
from raysynth.synthesis.contrast import Contrast
from raysynth.synthesis.denoise import Edited, denoise, draw_noise
from raysynth.synthesis.guidance import (
    ATTRIBUTE,
    EMPTY,
    LABEL,
    NEGATIVE,
    PROMPT,
    Guide,
    guide_of,
)
from raysynth.synthesis.lineage import Lineage, lineage_of
from raysynth.synthesis.masks import LEVEL as MASK_LEVEL
from raysynth.synthesis.masks import attribute_mask, spread_over
from raysynth.synthesis.rebalance import births
from raysynth.synthesis.schedule import EVEN
from raysynth.synthesis.solver import build_solver
from raysynth.synthesis.task import Drawing

DECODE_BATCH = 32
"""Images decoded or encoded at once, at most, where the configuration does not say."""
CAPTIONS_KEPT = 1024
"""Prompts whose states are kept where they are captions; a few hundred MB of a large base."""


@dataclass(frozen=True)
class Part:
    """Rows of a batch that are denoised together, with all that the network needs of them."""

    rows: np.ndarray
    """[b] row numbers in the batch; a row may repeat, to fill a run."""
    adapters: list[str]
    noise: Tensor
    """[b, C, H, W] float32, on the CPU."""
    generators: list[torch.Generator]
    condition: Condition
    """b rows of each of `Guide.rows`."""
    sources: np.ndarray | None
    """[b, side, side, 3] uint8 real images that are edited; None: drawn from noise."""
    contrast: Condition | None
    """2b rows of what is true of the sources, then of what is not; None: no mask."""
    seeds: list[int]
    """[b] of the images."""
    begun: Tensor | None
    """[b, C, H, W] float32 of the groups' Gaussians, on the CPU; None: pure noise, or sources."""
    guide: Guide
    """That of the run, with the aims of these rows."""


class ImageGenerator:
    """Rows of specs to pixels, in three steps: `prepare` needs no device to itself."""

    def __init__(self, drawing: Drawing, adapters: str, names: Sequence[str]) -> None:
        """Load the base model once and all adapters onto it.

        Parameters
        ----------
        adapters : the fine-tuning stage's folder or URI.
        names : adapters that the specs ask for.
        """
        recipe, synthesis = drawing.recipe, drawing.synthesis
        live = of_text(names, recipe.training, drawing.lora)
        loaded = load_base(drawing.base, size=drawing.size or synthesis.image_size)
        self.base = replace(loaded, live=live, cuts=drawing.captioned)
        round_weights(self.base.network, self.base.dtype)
        self.parted, kept = self._experts(drawing, names)
        self.bank = open_bank(self.base, adapters, kept, recipe.training, drawing.lora)
        self.solver = build_solver(synthesis.solver, self.base.scheduler, recipe.edits)
        self.guide = guide_of(synthesis.guidance, recipe.guidance_scale)
        self.steps, self.levels = recipe.steps, _levels_of(drawing)
        self.gaussians = gaussian.read(drawing.way.gaussians) if drawing.way.gaussians else None
        self.fits = self._fits(drawing.way.fits)
        self.strength, self.outside = recipe.strength, synthesis.strength_outside
        self.margin, self.sigma = synthesis.mask_margin, synthesis.rebalance.sigma
        self.shape, self.side = self.base.latent_shape, self.base.image_size
        self.decoded_at_once = synthesis.decode_batch_size or images_at_once(
            self.base.size, DECODE_BATCH
        )
        self.alone = {"": ("", ""), **drawing.alone}
        self._conditions: dict[str, Condition] = {}
        self._reading = threading.Lock()
        self.compile: Compiler | None = None
        worth = self.base.family.compiles and can_compile(self.base.device)
        worth &= not is_quantised(drawing.base)  # not measured
        if drawing.compiled and (synthesis.compile is True or worth):
            rows = synthesis.batch_size
            self.compile = Compiler(rows)
            # Now, not in the first batch, which would look like a slow device.
            adapter = names[0] if names else ""
            given = ([""] * rows, [""] * rows, [adapter] * rows, range(rows))
            self.denoise(self.prepare(*given, groups=[0] * rows))

    def __call__(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        adapters: Sequence[str],
        seeds: Sequence[int],
        sources: pa.Array | pa.ChunkedArray | None = None,
        contrasts: Sequence[Contrast] | None = None,
        groups: Sequence[int] | None = None,
        aims: Mapping[str, Sequence[int]] | None = None,
        paths: Sequence[str] | None = None,
    ) -> np.ndarray:
        """[B, side, side, 3] uint8 images of B specs."""
        given = (prompts, negatives, adapters, seeds, sources, contrasts, groups, aims, paths)
        return self.decode(self.denoise(self.prepare(*given)))

    def prepare(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        adapters: Sequence[str],
        seeds: Sequence[int],
        sources: pa.Array | pa.ChunkedArray | None = None,
        contrasts: Sequence[Contrast] | None = None,
        groups: Sequence[int] | None = None,
        aims: Mapping[str, Sequence[int]] | None = None,
        paths: Sequence[str] | None = None,
    ) -> list[Part]:
        """Noise and conditions of B specs, cut into what is denoised together.

        `sources`: [B] encoded real images (PNG, JPEG) to be edited; None: drawn from noise.
        `contrasts`: [B] what parts the sources into kept and regenerated; None: all is regenerated.
        `groups`: [B], where images begin at their group's Gaussian, or have aims.
        `aims`: [B] of each guidance term that is fitted; None: no image has any.
        `paths`: [B] down from the founders that `seeds` are of (`lineage`); None: no births.
        """
        parts = []
        pixels = None if sources is None else decode_bytes(sources, self.base.size)
        said = self._said(prompts, negatives)
        for rows in self.bank.parts(adapters):
            mine = [seeds[row] for row in rows]
            noise, generators, dice = self._noise(rows, mine, paths)
            spoken = [said[name][row] for name in self.guide.rows for row in rows]
            names = [adapters[row] for row in rows]
            real = None if pixels is None else pixels[rows]
            contrast = None
            if contrasts is not None:
                pairs = [contrasts[row] for row in rows]
                contrast = self._text([c.true for c in pairs] + [c.other for c in pairs])
            begun = None
            if self.gaussians is not None:
                assert groups is not None, "of the specs"
                begun = self.gaussians.draw([groups[row] for row in rows], dice)
            given = (noise, generators, self._text(spoken), real, contrast, mine, begun)
            parts.append(Part(rows, names, *given, self._aimed(rows, groups, aims)))
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

    def _noise(
        self, rows: np.ndarray, seeds: Sequence[int], paths: Sequence[str] | None
    ) -> tuple[Tensor, list[torch.Generator], Sequence[torch.Generator | Lineage]]:
        """Noise of rows of a batch, the solver's dice, and those that Gaussians are drawn with."""
        if paths is None:
            noise, generators = draw_noise(seeds, self.shape)
            return noise, generators, generators
        mine = [births(paths[row]) for row in rows]
        dice = [lineage_of(*own, self.sigma) for own in zip(seeds, mine, strict=True)]
        noise = torch.stack([own.normal(*self.shape) for own in dice])
        return noise, [own.dice[0] for own in dice], dice

    def _denoise(self, part: Part) -> Tensor:
        edited = self._edited(part)
        return denoise(
            partial(self._denoiser, part),
            self.solver,
            part.noise,
            part.generators,
            part.condition,
            part.guide,
            self.steps if self.levels is None else self.levels,
            edited,
            part.begun,
            self.parted,
        )

    def _experts(self, drawing: Drawing, names: Sequence[str]) -> tuple[list[float], list[str]]:
        """Levels at which another expert takes over, and what is to be loaded of adapters."""
        count, by = drawing.experts
        if count == 1 or drawing.recipe.training is None or not names:
            return [], list(names)
        return levels_of(self.base.prediction, count, by), [*names, *names_of(names, count)]

    def _fits(self, path: str) -> fits.Fits:
        """What guidance learnt of the real images, on the network's device."""
        names = [term.name for term in self.guide.fitted]
        if names and not path:
            raise ValueError(f"ImageGenerator: {names[0]} is fitted; expected a way that has fits")
        found = fits.read(path, names) if names else {}
        device = self.base.device
        return {k: {n: t.to(device) for n, t in fit.items()} for k, fit in found.items()}

    def _aimed(
        self,
        rows: np.ndarray,
        groups: Sequence[int] | None,
        aims: Mapping[str, Sequence[int]] | None,
    ) -> Guide:
        """The guide of rows of a batch."""
        if not self.fits or aims is None or groups is None:
            return self.guide
        group, *numbers = (
            torch.tensor([given[row] for row in rows], device=self.base.device)
            for given in (groups, *(aims[name] for name in self.fits))
        )
        return self.guide.aimed(self.fits, group, dict(zip(self.fits, numbers, strict=True)))

    def _denoiser(self, part: Part, copies: int, expert: int | None = None) -> Denoiser:
        """The network, with a part's adapters, or those experts of them, in use for its rows."""
        names = part.adapters
        if expert is not None:
            names = [name_of(name, expert) for name in names]
        unet = self.bank.use(names, copies)
        if self.compile is not None and len(set(names)) == 1:
            unet = self.compile(unet, len(part.rows))
        return Denoiser(self.base, unet)

    def _edited(self, part: Part) -> Edited | None:
        """The real images that a part edits, with their masks."""
        if part.sources is None:
            return None
        some = np.array_split(part.sources, -(-len(part.sources) // self.decoded_at_once))
        latents = torch.cat([encode(self.base, pixels) for pixels in some])
        if part.contrast is None:
            return Edited(latents, self.strength)
        names = part.adapters
        if self.parted:
            names = [name_of(name, expert_at(self.parted, MASK_LEVEL)) for name in names]
        denoiser = Denoiser(self.base, self.bank.use(names, copies=2))
        drawn = (part.contrast, part.seeds, self.margin)
        mask = attribute_mask(denoiser, self.solver, latents, *drawn)
        return Edited(latents, self.strength, mask, spread_over(self.outside, part.seeds))

    def _said(
        self, prompts: Sequence[str], negatives: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        """What each of `Guide.rows` says, of B specs."""
        said = {NEGATIVE: negatives, EMPTY: [""] * len(prompts), PROMPT: prompts}
        if not self.guide.alone:
            return said
        words = [self.alone[prompt] for prompt in prompts]
        return {**said, LABEL: [word[0] for word in words], ATTRIBUTE: [word[1] for word in words]}

    def _text(self, prompts: Sequence[str]) -> Condition:
        # Calls prepare their batches beside each other, and a tokenizer's padding is a state of it.
        with self._reading:
            if self.base.cuts and len(self._conditions) > CAPTIONS_KEPT:
                self._conditions.clear()
            new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._conditions]
            # Captions one by one: which are new depends on what was drawn before, or cut off.
            parts = [[one] for one in new] if self.base.cuts else [new]
            for some in filter(None, parts):
                found = self.base.condition(some).rows()
                self._conditions.update(zip(some, found, strict=True))
            return Condition.cat([self._conditions[prompt] for prompt in prompts])


def _levels_of(drawing: Drawing) -> tuple[float, ...] | None:
    """The levels of a drawing; ValueError where its schedule has none, or others than its own."""
    schedule, levels = drawing.synthesis.schedule.name, drawing.way.levels
    own = schedule == EVEN and not drawing.recipe.midway
    if (levels is None) != own:
        raise ValueError(
            f"ImageGenerator: got levels={levels} with synthesis.schedule={schedule}; "
            "expected those of `settled_way` or `find_way`"
        )
    return levels
