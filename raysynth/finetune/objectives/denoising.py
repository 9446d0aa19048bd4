"""Denoising: the squared error of what the base predicts of noisy images.

|| target - f(x_t, t, c) ||^2, Ho et al. 2020 (arXiv 2006.11239), eq. 14, with noise, clean image or
velocity as target, whichever the base was trained on. Weighted by min-SNR, Hang et al. 2023 (arXiv
2303.09556, section 3.4): min(SNR, gamma) of the clean image's error, which of the noise's is
min(SNR, gamma) / SNR and of the velocity's min(SNR, gamma) / (SNR + 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raysynth.errors import ConfigError
from raysynth.knobs import Section, Sections, knob

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.jobs import Job
    from raysynth.finetune.material import Material
    from raysynth.finetune.objective import Noised
    from raysynth.models.denoiser import Denoiser
    from raysynth.models.family import Base
    from raysynth.models.prediction import Prediction


class DenoisingKnobs(Section):
    """How noise levels are weighed."""

    min_snr: Annotated[float, Field(gt=0)] | None = knob(
        None,
        "Gamma of min-SNR weighting, 5 in its paper: errors at low noise count less; None: every "
        "level's the same.",
    )


def min_snr_weight(prediction: Prediction, timestep: Tensor, gamma: float) -> Tensor:
    """[B] weights of errors of what the base predicts, at timesteps [B] of a diffusion."""
    ratio = prediction.noise_to_signal(timestep).square()  # 1 / SNR, which may be infinite
    capped = (gamma * ratio).clamp(max=1)  # min(SNR, gamma) / SNR
    if prediction.kind == "epsilon":
        return capped
    return capped / ratio if prediction.kind == "sample" else capped / (1 + ratio)


class Denoising:
    """See `raysynth.finetune.objective.Objective`."""

    title = "Denoising"
    source = "Ho et al. 2020 (arXiv 2006.11239); min-SNR: Hang et al. 2023 (arXiv 2303.09556)"
    Knobs = DenoisingKnobs

    def passes(self, knobs: DenoisingKnobs) -> int:
        """One."""
        return 1

    def check(self, config: Sections, knobs: DenoisingKnobs) -> None:
        """Refuse min-SNR for a rectified flow, as far as a folder says that the base is one."""
        from pathlib import Path

        from raysynth.models.family import reader_of
        from raysynth.models.settings import BaseConfigSection
        from raysynth.models.sources import resolve

        source = Path(resolve(config[BaseConfigSection].name))
        if _gamma(knobs) is None or not source.is_dir():
            return
        said = reader_of(source)("scheduler") or {}
        named = f"{said.get('_class_name')} {said.get('prediction_type')}"
        if "FlowMatch" in named or "flow_prediction" in named:
            raise _of_a_flow()

    def extra(
        self, material: Material, job: Job, base: Base, seed: int, knobs: DenoisingKnobs
    ) -> Material:
        """Nothing more."""
        return material

    def losses(self, batch: Noised, denoise: Denoiser, knobs: DenoisingKnobs) -> Tensor:
        """[B] mean squared errors, weighted."""
        errors = (batch.predicted.raw - batch.target).square().flatten(1).mean(1)
        gamma = _gamma(knobs)
        if gamma is None:
            return errors
        prediction = denoise.base.prediction
        if prediction.alphas is None:
            raise _of_a_flow()
        return min_snr_weight(prediction, batch.timestep, gamma) * errors


def _gamma(knobs: Section) -> float | None:
    """None of the knobs of another package's denoising too, which has its own."""
    found: float | None = getattr(knobs, "min_snr", None)
    return found


def _of_a_flow() -> ConfigError:
    return ConfigError(
        "finetune.objective={name: denoising, min_snr: ...}: the base is a rectified flow, of "
        "which min-SNR's weights say nothing; expected a diffusion model. Fix: leave min_snr out"
    )


PART = Denoising()
