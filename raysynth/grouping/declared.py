"""The stage of grouping, which stands in for the data set's table where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysynth.grouping.settings import GROUPING as METHODS
from raysynth.knobs import decides
from raysynth.stages.stage import Stage


def _decided_by(config: Any) -> Mapping[str, Any]:
    chosen = config.grouping.method
    own = METHODS[chosen.name].decided_by(config)
    return {"knobs": decides(config.grouping), "seed": config.seed, **own}


GROUPING = Stage(
    "grouping",
    "grouped",
    "raysynth.grouping.stage:build",
    ("ingest",),
    _decided_by,
    check="raysynth.grouping.checks:check",
    check_groups="raysynth.grouping.checks:check_groups",
    cost="raysynth.planning.grouping_cost:of_grouping",
    stands_for="ingest",
    where=lambda config: not config.grouping.is_given,
)
