"""The stage of the method's own classifier; its knobs are the networks' (`classifier`)."""

from __future__ import annotations

from raysynth.knobs import decides
from raysynth.references.settings import mixtures_rates
from raysynth.stages.stage import Stage

CLASSIFICATION = Stage(
    "classification",
    "classifier",
    "raysynth.classify.stage:build",
    ("search", "references"),
    lambda config: {
        "knobs": decides(config.classifier.settled()) | mixtures_rates(config),
    },
    cost="raysynth.planning.costs:of_classification",
)
