"""Without each group: an image owes a group as much as it is less likely without it.

A model that speaks for several groups is taught to forget one, for each of them; a score is the
evidence bound of the image in the full model less that in the model without the group, under the
prompt that the image was drawn with.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from raysynth.audit.method import Audit, Generated, Owed, Passes
from raysynth.errors import ConfigError
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import check_attribute
from raysynth.knobs import Count, Rate, Section, Share, knob

NAME = "audit.method=guda"
FIX = "Fix: generator=shared and finetune.per=all, or audit.method=none"


class GudaKnobs(Section):
    """How models forget, and how closely images are looked at."""

    steps: Count = knob(60, "Optimizer steps of each model without a group.")
    learning_rate: Rate | None = knob(
        None,
        "AdamW's peak learning rate; null: half of that with which the full model was trained "
        "(theirs: 2e-6, 2,000 steps).",
    )
    preserve: Annotated[float, Field(ge=0)] = knob(
        1.0, "Weight of what the other groups' prompts still say (theirs: 1 to 3)."
    )
    beta: Annotated[float, Field(ge=0)] = knob(
        2.0, "How much likelier prompts that are similar to the forgotten one are as anchors."
    )
    uniform: Share = knob(0.3, "Share of the anchors that are drawn evenly.")
    timesteps: Count = knob(20, "Noise levels of an evidence bound (theirs: 100).")


def _check(config: Any, knobs: GudaKnobs) -> None:
    training = recipe_of(config).training
    named = f"{NAME}: generator={config.generator}"
    several = "expected models that speak for several groups"
    if training is None:
        raise ConfigError(f"{named} trains no model; {several}. {FIX}")
    if not training.shared:
        raise ConfigError(
            f"{named} has a model for each group, and without a group is without its model; "
            f"{several} (of generator=auto: candidates=[shared, edit]). {FIX}"
        )
    if training.scope == "attribute":
        raise ConfigError(_no_anchor("finetune.per=attribute"))
    why = f"{NAME} has no other prompt of a label to draw instead"
    check_attribute(config.prompts, why)
    if config.finetune.experts > 1:
        raise ConfigError(
            f"{NAME}: got finetune.experts={config.finetune.experts}, models for some noise levels "
            "each; expected one for all levels. Fix: finetune.experts=1, or audit.method=none"
        )


def _no_anchor(why: str) -> str:
    return (
        f"{NAME}: {why}, and a model that knows one attribute alone has no other to draw instead; "
        f"expected models of all groups, or of the groups of a class. {FIX}"
    )


def _check_groups(config: Any, knobs: GudaKnobs, groups: Groups, counts: np.ndarray) -> None:
    from raysynth.finetune.jobs import expected_jobs

    recipe = settled(recipe_of(config), counts)
    assert recipe.training is not None  # refused before
    if recipe.training.scope == "attribute":
        raise ConfigError(
            _no_anchor(
                "a group has fewer training images than finetune.min_images="
                f"{recipe.min_images}, so there is a model for each attribute"
            )
        )
    sections = (config.finetune, config.prompts, config.clustering)
    for job in expected_jobs(recipe, *sections, groups, counts):
        if len(job.prompts) < 2:
            only = ", ".join(groups.name(g) for g in job.prompts)
            raise ConfigError(
                f"{NAME}: the model {job.name!r} is trained on {only} alone, as other groups have "
                f"fewer images than finetune.min_images={recipe.min_images}; without it nothing is "
                f"left of it; expected two groups or more in each model. {FIX}"
            )


def _score(generated: Generated, knobs: GudaKnobs) -> Owed:
    from raysynth.audit.without import scored

    return scored(generated, knobs)


def _passes(knobs: GudaKnobs, groups: int, batch: int) -> Passes:
    rows = groups * knobs.steps * batch
    return Passes(rows, rows, (groups + 1) * knobs.timesteps, groups)


def _in_words(knobs: GudaKnobs, groups: int) -> str:
    return (
        f"trains {groups} models without a group, {knobs.steps} steps each, and asks the UNet "
        f"{groups + 1} x {knobs.timesteps} times per audited image"
    )


PART = Audit(
    title="Without each group",
    source="GUDA (Murata et al. 2026; their code); noise levels, and a model of several groups' "
    "adapters in one batch, are ours",
    score=_score,
    Knobs=GudaKnobs,
    check=_check,
    check_groups=_check_groups,
    passes=_passes,
    in_words=_in_words,
)
