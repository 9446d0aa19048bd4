"""The stage of the search."""

from __future__ import annotations

from raysynth.knobs import decides
from raysynth.networks.settings import searched_knobs
from raysynth.stages.stage import Stage

SEARCH = Stage(
    "search",
    "search",
    "raysynth.search.stage:build",
    ("ingest", "selection"),
    lambda config: {
        "knobs": decides(config.search.settled(config.classifier)),
        "classifier": searched_knobs(config),
    },
    cost="raysynth.planning.costs:of_search",
)
