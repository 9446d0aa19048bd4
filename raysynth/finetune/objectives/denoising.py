"""Denoising: the squared error of what the base predicts of noisy images.

|| target - f(x_t, t, c) ||^2, Ho et al. 2020 (arXiv 2006.11239), eq. 14, with noise, clean image or
velocity as target, whichever the base was trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysynth.knobs import Section

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.jobs import Job
    from raysynth.finetune.material import Material
    from raysynth.finetune.objective import Noised
    from raysynth.models.denoiser import Denoiser
    from raysynth.models.family import Base


class Denoising:
    """See `raysynth.finetune.objective.Objective`."""

    title = "Denoising"
    source = "Ho et al. 2020 (arXiv 2006.11239)"
    Knobs = Section

    def passes(self, knobs: Section) -> int:
        """One."""
        return 1

    def extra(
        self, material: Material, job: Job, base: Base, seed: int, knobs: Section
    ) -> Material:
        """Nothing more."""
        return material

    def losses(self, batch: Noised, denoise: Denoiser, knobs: Section) -> Tensor:
        """[B] mean squared errors."""
        return (batch.predicted.raw - batch.target).square().flatten(1).mean(1)


PART = Denoising()
