"""The knobs of `references`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
)

from raysynth.knobs import Count, Rate, Section, knob
from raysynth.networks.settings import ClassifierConfig, Start
from raysynth.registry import Registry, named_part

METHODS: Registry[Any] = Registry("raysynth.references.methods", "reference")
"""Mixtures among them, which `classifier.mixtures` names."""
REAL_ONLY = METHODS.only("reference", lambda part: part.kind == "reference")
CONTROLS: Registry[Any] = Registry("raysynth.references.controls", "control")


class ReferencesConfig(Section):
    """Real-only references and control rows; tuned on validation, all over the same settings."""

    names: tuple[named_part(REAL_ONLY), ...] = knob(  # type: ignore[valid-type]
        ("erm", "resampling", "subsampling", "group_dro", "erm_balanced_head"),
        "References trained on the real images.",
    )
    controls: tuple[named_part(CONTROLS), ...] = knob(  # type: ignore[valid-type]
        ("clip_balanced_head",),
        "What a model knows by itself: a balanced head on the base's CLIP; on ImageNet's features "
        "(needs raysynth[imagenet]); embedded base and outfits: on a network trained on the base's "
        "labelled images.",
    )
    start: Start | None = knob(
        None, "Weights that references start from; None: as `classifier.start`."
    )
    seeds: Count = knob(3, "Seeds of each reference.")
    steps: Count = knob(200, "Optimizer steps of each reference.")
    evaluations: Count = knob(8, "Evaluations on validation per training: its stopping points.")
    weight_decays: Annotated[tuple[float, ...], Field(min_length=1)] = knob(
        (1e-1, 1.0), "Weight decays tried for every reference, on validation."
    )
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] | None = knob(
        None,
        "Peak learning rates tried for every reference and mixture, on validation. None: [3e-3]; a "
        "pretrained backbone other than small: [1e-4].",
    )
    head_weight_decays: Annotated[tuple[float, ...], Field(min_length=1)] = knob(
        (1e-3, 1e-2, 1e-1, 1.0),
        "erm_balanced_head and controls: weight decays of the head tried.",
    )
    dro_step_size: Rate = knob(0.01, "group_dro: step size of the group weights.")
    jtt_steps: Count = knob(25, "jtt: steps of the identification model (T).")
    jtt_upweight: Count = knob(50, "jtt: copies of a misread image (lambda).")
    dfr_penalty: Literal["l1", "l2"] = knob(
        "l1", "dfr_train, dfr_validation: penalty of the logistic regressions."
    )

    def network(self, classifier: ClassifierConfig) -> ClassifierConfig:
        """The network as references have it: with their start."""
        return classifier.model_copy(update={"start": self.start or classifier.start})

    def settled(self, classifier: ClassifierConfig) -> ReferencesConfig:
        """This section with the learning rates that the references' network has by itself."""
        own = self.network(classifier).rates(bool(self.names)).references
        return self.model_copy(update={"learning_rates": self.learning_rates or own})

    def for_mixtures(self, classifier: ClassifierConfig) -> ReferencesConfig:
        """What mixtures are tuned over: as references, at the rates of their own start."""
        own = classifier.rates().references
        return self.model_copy(update={"learning_rates": self.learning_rates or own})


def mixtures_rates(config: Any) -> dict[str, Any]:
    """The mixtures' learning rates, where they decide a classification: others than references'."""
    references, classifier = config.references, config.classifier
    rates = references.for_mixtures(classifier).learning_rates
    if not classifier.mixtures or rates == references.settled(classifier).learning_rates:
        return {}
    return {"mixture_learning_rates": list(rates)}
