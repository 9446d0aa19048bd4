"""The knobs of `references`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
)

from raysynth.knobs import Count, Rate, Section
from raysynth.networks.settings import Start
from raysynth.registry import Registry, named_part

METHODS: Registry[Any] = Registry("raysynth.references.methods", "reference")
"""Mixtures among them, which `classifier.mixtures` names."""
REAL_ONLY = METHODS.only("reference", lambda part: part.kind == "reference")
CONTROLS: Registry[Any] = Registry("raysynth.references.controls", "control")


class ReferencesConfig(Section):
    """Real-only references and control rows; tuned on validation, all over the same settings."""

    names: tuple[named_part(REAL_ONLY), ...] = Field(  # type: ignore[valid-type]
        ("erm", "resampling", "subsampling", "group_dro", "erm_balanced_head"),
        description="References trained on the real images.",
    )
    controls: tuple[named_part(CONTROLS), ...] = Field(  # type: ignore[valid-type]
        (),
        description="What the base model knows by itself: a balanced head on its CLIP; embedded "
        "base and outfits: one on a network trained on the base's labelled images.",
    )
    start: Start | None = Field(
        None, description="Weights that references start from; None: as `classifier.start`."
    )
    seeds: Count = Field(3, description="Seeds of each reference.")
    steps: Count = Field(200, description="Optimizer steps of each reference.")
    evaluations: Count = Field(
        8, description="Evaluations on validation per training: its stopping points."
    )
    weight_decays: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        (1e-1, 1.0), description="Weight decays tried for every reference, on validation."
    )
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = Field(
        (3e-3,),
        description="Peak learning rates tried for every reference, on validation; a pretrained "
        "`clip` or transformers model: [1e-4] unless given.",
    )
    head_weight_decays: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        (1e-3, 1e-2, 1e-1, 1.0),
        description="erm_balanced_head and controls: weight decays of the head tried.",
    )
    dro_step_size: Rate = Field(0.01, description="group_dro: step size of the group weights.")
    jtt_steps: Count = Field(25, description="jtt: steps of the identification model (T).")
    jtt_upweight: Count = Field(50, description="jtt: copies of a misread image (lambda).")
    dfr_penalty: Literal["l1", "l2"] = Field(
        "l1", description="dfr_train, dfr_validation: penalty of the logistic regressions."
    )
