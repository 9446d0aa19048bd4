"""The stage of the search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raysynth.fidelity.settings import REAL_ONLY
from raysynth.knobs import decides
from raysynth.networks.settings import searched_knobs
from raysynth.stages.stage import Stage


def _heeds(config: Any) -> bool:
    return bool(config.selection.on_unfaithful == REAL_ONLY)


SEARCH = Stage(
    "search",
    "search",
    "raysynth.search.stage:build",
    ("ingest", "selection"),
    lambda config: {
        "knobs": decides(config.search.settled(config.classifier)),
        "classifier": searched_knobs(config),
    },
    check_read={"fidelity": "raysynth.fidelity.gate:check"},
    cost="raysynth.planning.costs:of_search",
    where=lambda config: not _heeds(config),
)
JUDGED_SEARCH = replace(SEARCH, reads=(*SEARCH.reads, "fidelity"), where=_heeds)
"""The same where what was found of the images decides whether any of them is used."""
