"""Objectives: what a fine-tuning's loss is, of every row of a batch by itself.

An objective is a file of `raysynth/finetune/objectives` (`settings.OBJECTIVES`). It speaks to the
denoiser alone, so it holds for every base; the loop weighs its values, sums them per adapter,
scales and clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from raysynth.knobs import Section, Sections

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.jobs import Job
    from raysynth.finetune.material import Drawn, Material
    from raysynth.models.condition import Condition
    from raysynth.models.denoiser import Denoiser
    from raysynth.models.family import Base
    from raysynth.models.prediction import Predicted


@dataclass(frozen=True)
class Noised:
    """A micro-batch of all adapters in training, and what the model says of it.

    The prediction under the rows' own prompts is made once, by whoever reads it first: an
    objective's, and what its terms (`term.Term`) compare with.
    """

    denoise: Denoiser
    """To be called with all B rows, in order, or not at all: adapters are routed by row."""

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
    differs: Mapping[str, Tensor]
    """Name -> [B] bool, rows whose other prompt is not their own; where it is, nothing is asked:
    rows that are trained without prompt, DreamBooth's prior images."""
    values: Mapping[str, Tensor]
    """Name -> [B] float32 numbers of the rows, by the names that `extra` gave them."""
    images: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> [B, ...] float32 what is known of the rows' images (`OfImages`); 0: nothing is."""
    jobs: Sequence[Job] = ()
    """Whose each of the B rows is; on the host, so that to ask waits for no device."""
    draw_probe: Callable[[], Tensor] | None = None
    """Draws [B, C, h, w] normal numbers besides the noise, the same at every call."""

    @cached_property
    def predicted(self) -> Predicted:
        """What the model says of the rows under their own prompts."""
        return self.denoise(self.x, self.timestep, self.condition)

    @property
    def level(self) -> Tensor:
        """[B] share of the noise schedule: t / T, s of rectified flow."""
        return self.timestep / self.denoise.base.prediction.timesteps


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
        """[B] losses, before weights; `denoise` is called with all B rows or not at all.

        The prediction under the own prompts is `batch.predicted`, which terms read too.
        """


@runtime_checkable
class Choosy(Protocol):
    """A loss that does not fit every run."""

    def check(self, config: Sections, knobs: Any) -> None:
        """Refuse a run that it has no use for; ConfigError."""


@runtime_checkable
class OfImages(Objective, Choosy, Protocol):
    """A loss that must know more of images than their latents."""

    twice: bool
    """Whether it takes gradients of gradients: fused attention has none."""

    def of_images(
        self, drawn: Drawn, job: Job, base: Base, real: str, seed: int, knobs: Any
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """What is known of the encoded images, by name; 0 where nothing is, as of prior images.

        And what is noted of it, JSON-able. `real`: folder of the real table.
        """
