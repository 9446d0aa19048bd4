"""What finding the groups costs: a classifier, and what a method asks of the base."""

from __future__ import annotations

from raysynth.config.config import Config
from raysynth.finetune.settings import FinetuneConfig
from raysynth.grouping.settings import GROUPING
from raysynth.heads.spec import TRAINED
from raysynth.planning.costs import (
    LORA,
    Sized,
    classifier_flops,
    classifier_forward,
    of_ingest,
    training_cost,
)
from raysynth.stages.stage import Cost
from raysynth.training.plan import Phase, Plan


def of_grouping(config: Config, sized: Sized) -> Cost:
    """What a method trains and asks of the base, and what it says of all images.

    And the real table again.
    """
    images, chosen = sized.images, config.grouping.method
    method, knobs = GROUPING[chosen.name], chosen.knobs(GROUPING)
    flops: dict[str, float] = {}
    passes = method.passes(knobs, images.attributes, images.splits["train"])
    if passes.trained:
        training = LORA if passes.adapters else None
        settings = FinetuneConfig() if passes.adapters else config.finetune
        cost = training_cost(training, settings, sized.shape)
        flops["grouping"] = passes.trained * cost.training + passes.forward * cost.forward
    if steps := method.steps(knobs):
        phase = Phase("real", steps, 1.0, 0.0)
        flops |= classifier_flops(config, images, [(Plan((phase,), (TRAINED,), 1), 1)])
        flops["classifiers"] += classifier_forward(config, images) * sum(images.splits.values())
    return Cost(flops) + of_ingest(config, sized)
