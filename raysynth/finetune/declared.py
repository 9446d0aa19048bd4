"""The stage of fine-tuning: the models of one generator."""

from __future__ import annotations

from raysynth.generators.inputs import training_inputs
from raysynth.models.settings import base_of
from raysynth.stages.stage import Stage

FINETUNE = Stage(
    "finetune",
    "adapters",
    "raysynth.finetune.stage:build",
    ("clustering",),
    lambda config: {
        **training_inputs(config),
        "base": base_of(config.base),
    },
    check="raysynth.finetune.checks:check_finetune",
    check_groups="raysynth.finetune.checks:check_jobs",
    per_generator=True,
    cost="raysynth.planning.costs:of_finetune",
)
