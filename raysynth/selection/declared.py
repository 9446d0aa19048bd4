"""The stages that keep images: of one generator, and of several the best for each group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raysynth.generators.recipe import AUTO
from raysynth.knobs import decides
from raysynth.models.settings import clip_of
from raysynth.networks.settings import searched_knobs
from raysynth.stages.stage import Stage


def _heeds(config: Any) -> bool:
    """Whether an audit decides; that there is one is the stage's own check."""
    return config.selection.leak != "none" and not config.audit.is_off


SELECTION = Stage(
    "selection",
    "selection",
    "raysynth.selection.stage:build",
    ("synthesis",),
    # What is done about unfaithful images does not decide who is kept.
    lambda config: {"knobs": decides(config.selection, "on_unfaithful")},
    check="raysynth.selection.checks:check",
    per_generator=True,
    cost="raysynth.planning.costs:of_selection",
    where=lambda config: not _heeds(config),
)
AUDITED_SELECTION = replace(SELECTION, reads=(*SELECTION.reads, "audit"), where=_heeds)
"""The same where what images owe decides too."""
CHOICE = Stage(
    "synthesis",
    "synthetic",
    "raysynth.selection.by_validation:build",
    ("selection/*", "ingest"),
    lambda config: {
        "classifier": searched_knobs(config),
        "clip": clip_of(config.base),
        "heads": decides(config.search)["head_weight_decays"],
        **_shares(decides(config.search)),
    },
    check="raysynth.networks.checks:check_backbone",
    check_read={"ingest": "raysynth.networks.checks:check_sides"},
    cost="raysynth.planning.costs:of_choice",
    beside={"real": "ingest"},
    where=lambda config: config.generator == AUTO,
)
"""`generator: auto`: a generator per group; its images are the run's synthetic table."""
CHOSEN = Stage(
    "selection",
    "selection",
    "raysynth.selection.by_validation:build_chosen",
    ("synthesis",),
    ray=False,
    where=lambda config: config.generator == AUTO,
)
"""Its selection: each group's rows are those of its generator."""


def _shares(search: dict[str, Any]) -> dict[str, Any]:
    return {"shares": search["head_real_shares"]} if "head_real_shares" in search else {}
