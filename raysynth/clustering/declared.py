"""The stage of clustering."""

from __future__ import annotations

from raysynth.knobs import decides
from raysynth.models.settings import clip_of
from raysynth.stages.stage import Stage

CLUSTERING = Stage(
    "clustering",
    "clusters",
    "raysynth.clustering.stage:build",
    ("ingest",),
    lambda config: {"knobs": decides(config.clustering), "clip": clip_of(config.base)},
    check="raysynth.clustering.checks:check",
    check_groups="raysynth.clustering.checks:check_groups",
    cost="raysynth.planning.costs:of_clustering",
)
