"""The knobs of `search`."""

from __future__ import annotations

from itertools import product
from typing import Annotated

from pydantic import (
    Field,
    model_validator,
)

from raysynth.cluster.asked import Asked
from raysynth.knobs import Count, Place, Rate, Section, Share, Span, knob
from raysynth.networks.settings import ClassifierConfig

RANGES = {
    "beta": "betas",
    "temperature": "temperatures",
    "learning_rate": "learning_rates",
    "weight_decay": "weight_decays",
    "steps": "steps",
}
"""Knob of `classifier` that is searched -> the knob of its range, [low, high]."""


class SearchConfig(Section):
    """Ray Tune over the synthetic ratio and the hyperparameters; objective: validation WGA."""

    trials: Annotated[int, Field(ge=0)] = knob(12, "Trials; 0: `classifier` as it is.")
    concurrent: Count = knob(2, "Trials at once.", width=True)
    cpus_per_trial: Rate = knob(1.0, "CPUs per trial.", width=True)
    gpus_per_trial: Annotated[float, Field(ge=0)] = knob(0.0, "GPUs per trial.", width=True)
    ratios: tuple[float, ...] = knob(
        (0.0, 0.25, 0.5), "Synthetic ratios tried; 0: real images only."
    )
    betas: Span = knob((0.2, 1.0), "Range of beta.")
    temperatures: Span = knob((0.05, 0.5), "Range of the SupCon temperature (log).")
    learning_rates: Span | None = knob(
        None,
        "Range of stage 1 learning rate (log). None: [1e-3, 6e-3]; a pretrained `clip` or "
        "transformers model: [1e-5, 1e-3].",
    )
    weight_decays: Span = knob((1e-3, 3e-1), "Range of stage 1 weight decay (log).")
    steps: tuple[int, int] = knob(
        (150, 450),
        "Range of stage 1 optimizer steps; [0, 0]: heads on the pretrained backbone.",
    )
    head_weight_decays: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)
    ] = knob(
        (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
        "Weight decays of the head, all tried on every evaluation of every trial.",
    )
    head_real_shares: Annotated[tuple[Share, ...], Field(min_length=1)] = knob(
        (1.0,),
        "Values of classifier.head_real_share, all tried with every weight decay of "
        "the head: below 1 pays where a group has few real images.",
        neutral=[1.0],
    )
    real_shares: tuple[Share, ...] = knob(
        (),
        "joint: values of classifier.real_share that are searched, each tried at least once as "
        "far as trials go; none: as it is.",
        neutral=[],
    )
    reduction_factor: Annotated[int, Field(ge=2)] = knob(3, "ASHA's reduction factor.")
    storage: Place | None = knob(
        None,
        "Database that trials are copied to for optuna-dashboard, such as sqlite:////data/trials.db"
        "; None: none.",
        width=True,
    )

    def settled(self, classifier: ClassifierConfig) -> SearchConfig:
        """This section with the range of learning rates that the network has by itself."""
        own = classifier.rates(self.steps[1] > 0).searched
        return self.model_copy(update={"learning_rates": self.learning_rates or own})

    @property
    def heads(self) -> list[tuple[float, float]]:
        """(weight decay, real share) of every head that a trial tries."""
        return list(product(self.head_weight_decays, self.head_real_shares))

    @model_validator(mode="after")
    def _check(self) -> SearchConfig:
        for name in RANGES.values():
            low, high = getattr(self, name) or (1.0, 1.0)
            if low > high:
                raise ValueError(f"search.{name}: [low, high] expected, got [{low}, {high}]")
            if name != "betas" and low <= 0 and (name, high) != ("steps", 0):
                raise ValueError(f"search.{name}: positive bounds expected, got [{low}, {high}]")
        if self.betas[0] < 0 or self.betas[1] > 1:
            raise ValueError(f"search.betas: shares in [0, 1] expected, got {list(self.betas)}")
        if not self.ratios or min(self.ratios) < 0:
            raise ValueError(
                f"search.ratios: at least one ratio >= 0 expected, got {list(self.ratios)}"
            )
        return self

    @property
    def asked(self) -> Asked:
        """What the trials ask for."""
        knobs = ("search.concurrent", "search.cpus_per_trial", "search.gpus_per_trial")
        return Asked(self.concurrent, self.cpus_per_trial, self.gpus_per_trial, knobs)
