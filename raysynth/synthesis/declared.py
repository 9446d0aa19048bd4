"""The stage of synthesis: the images of one generator."""

from __future__ import annotations

from raysynth.generators.inputs import synthesis_inputs
from raysynth.stages.stage import Stage

SYNTHESIS = Stage(
    "synthesis",
    "synthetic",
    "raysynth.synthesis.stage:build",
    ("finetune",),
    synthesis_inputs,
    check="raysynth.synthesis.checks:check_synthesis",
    per_generator=True,
    cost="raysynth.planning.costs:of_synthesis",
)
