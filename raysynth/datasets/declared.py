"""The stage of ingest: photographs become the real table."""

from __future__ import annotations

from raysynth.knobs import decides
from raysynth.stages.stage import Stage

INGEST = Stage(
    "ingest",
    "real",
    "raysynth.datasets.ingest:build",
    decided_by=lambda config: {"dataset": decides(config.dataset), "seed": config.seed},
    cost="raysynth.planning.costs:of_ingest",
)
"""What the data set's files hold decides too, see `contents.source_digest`."""
