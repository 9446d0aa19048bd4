"""Prodigy: AdamW that finds its learning rate, by how far the weights have gone.

Built once for each adapter: its estimate of the distance is one for all that it steps.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysynth.finetune.optimizer import BETAS
from raysynth.finetune.settings import FinetuneConfig
from raysynth.knobs import Rate, Section, knob

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class ProdigyKnobs(Section):
    """How bold it is."""

    d_coef: Rate = knob(1.0, "Factor of the learning rate that it finds.")


class Prodigy:
    """See `raysynth.finetune.optimizer.Optimizer`."""

    title = "Prodigy"
    source = "Mishchenko & Defazio 2024 (arXiv 2306.06101); prodigyopt"
    Knobs = ProdigyKnobs
    packages = ("prodigyopt",)
    extra = "optimizers"
    rate = 1.0
    falls = True
    averages = False
    bytes = 16.0
    states = ("s", "exp_avg", "exp_avg_sq")
    carried = ("d", "d_max", "d_numerator", "k")

    def build(
        self, rows: Sequence[nn.Parameter], settings: FinetuneConfig, knobs: ProdigyKnobs
    ) -> Sequence[torch.optim.Optimizer]:
        """One for each row; its bias is corrected and the warm-up kept out of its estimate."""
        from prodigyopt import Prodigy as Library

        with contextlib.redirect_stdout(io.StringIO()):  # a line for each that decays
            return [
                Library(
                    [row],
                    betas=BETAS,
                    weight_decay=settings.weight_decay,
                    d_coef=knobs.d_coef,
                    use_bias_correction=True,
                    safeguard_warmup=True,
                )
                for row in rows
            ]

    def kept(self, row: Tensor, state: Mapping[str, Any]) -> Tensor:
        """The weights themselves."""
        return row


PART = Prodigy()
