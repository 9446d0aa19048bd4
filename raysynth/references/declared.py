"""The stage of references and controls."""

from __future__ import annotations

from typing import Any

from raysynth.knobs import decides
from raysynth.models.settings import clip_of
from raysynth.networks.settings import shared_knobs
from raysynth.references.settings import CONTROLS
from raysynth.stages.stage import Stage

REFERENCES = Stage(
    "references",
    "references",
    "raysynth.references.stage:build",
    ("ingest",),
    lambda config: {
        "knobs": decides(config.references.settled(config.classifier), "start"),
        "classifier": shared_knobs(config),
        **_of_controls(config),
    },
    check="raysynth.references.checks:check",
    check_read={"ingest": "raysynth.networks.checks:check_sides"},
    cost="raysynth.planning.costs:of_references",
    early=True,
)


def _of_controls(config: Any) -> dict[str, Any]:
    clip = any(CONTROLS[name].uses_clip for name in config.references.controls)
    return {"clip": clip_of(config.base)} if clip else {}
