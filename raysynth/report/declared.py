"""The stage of the report, which reads what every other stage left."""

from __future__ import annotations

from raysynth.knobs import decides
from raysynth.stages.stage import Stage

REPORT = Stage(
    "report",
    "report",
    "raysynth.report.stage:build",
    ("*",),
    lambda config: {"name": config.name, **decides(config.report)},
    ray=False,
)
