"""What finding the groups costs: a classifier, and what a method asks of the base."""

from __future__ import annotations

from raysynth.config.config import Config
from raysynth.finetune.settings import FinetuneConfig
from raysynth.grouping.settings import GROUPING
from raysynth.heads.spec import TRAINED
from raysynth.planning.costs import (
    LORA,
    RESNET_50_FLOPS,
    Sized,
    classifier_flops,
    of_ingest,
    training_cost,
)
from raysynth.stages.stage import Cost
from raysynth.training.plan import Phase, Plan


def of_grouping(config: Config, sized: Sized) -> Cost:
    """What a method trains, and what that says of all images; the real table again.

    And what it trains and draws with the base.
    """
    images, chosen = sized.images, config.grouping.method
    method, knobs = GROUPING[chosen.name], chosen.knobs(GROUPING)
    steps, draws = method.steps(knobs), method.draws(knobs)
    flops: dict[str, float] = {}
    if draws.trained or draws.forwards:
        cost = training_cost(LORA, FinetuneConfig(), sized.shape)
        flops["grouping"] = draws.trained * cost.training + draws.forwards * cost.forward
    if steps:
        phase = Phase("real", steps, 1.0, 0.0)
        flops |= classifier_flops(config, images, [(Plan((phase,), (TRAINED,), 1), 1)])
        forward = RESNET_50_FLOPS * (images.classified_side / 224) ** 2
        flops["classifiers"] += forward * sum(images.splits.values())
    passes = method.passes(knobs, images.attributes, images.splits["train"])
    if passes.trained:
        cost = training_cost(None, config.finetune, sized.shape)
        flops["grouping"] = passes.trained * cost.training + passes.forward * cost.forward
    return Cost(flops) + of_ingest(config, sized)
