"""Objectives: what a fine-tuning's loss is, of every row of a batch by itself.

An objective is a file of `raysynth/finetune/objectives`. It speaks to the denoiser alone, so it
holds for every base; the loop weighs its values, sums them per adapter, scales and clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raysynth.knobs import Section
from raysynth.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.jobs import Job
    from raysynth.finetune.material import Material
    from raysynth.models.condition import Condition
    from raysynth.models.denoiser import Denoiser
    from raysynth.models.family import Base


@dataclass(frozen=True)
class Noised:
    """A micro-batch of all adapters in training."""

    x: Tensor
    """[B, C, h, w] noisy latents."""
    timestep: Tensor
    """[B] on the scheduler's own scale."""
    condition: Condition
    """B rows: every image's own prompt, or the empty one."""
    clean: Tensor
    """[B, C, h, w] latents without noise."""
    noise: Tensor
    """[B, C, h, w]."""
    target: Tensor
    """[B, C, h, w] of what the base predicts, to be met by `Predicted.raw`."""
    also: Mapping[str, Condition]
    """Other prompts of the rows, by the names that `extra` gave them."""


class Objective(Protocol):
    """One loss."""

    title: str
    source: str
    Knobs: type[Section]

    def passes(self, knobs: Any) -> int:
        """Times that `losses` calls the denoiser; memory and costs are counted by it."""

    def extra(self, material: Material, job: Job, base: Base, seed: int, knobs: Any) -> Material:
        """The material with all else that the loss reads of its rows.

        Random choices follow from the job and the run's seed alone (`draws.dice_of`), so that an
        adapter comes out the same in any pack.

        Parameters
        ----------
        base : with its encoders, not its network.
        """

    def losses(self, batch: Noised, denoise: Denoiser, knobs: Any) -> Tensor:
        """[B] losses, before weights; `denoise` is called with all B rows or not at all."""


OBJECTIVES: Registry[Objective] = Registry("raysynth.finetune.objectives", "fine-tuning objective")
