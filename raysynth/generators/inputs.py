"""What fine-tuning and synthesis depend on: their digests' inputs.

Every knob decides, but for those that the recipe has no use for: each is left out for a reason that
stands here, and a knob that nobody thought of makes models and images anew.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from raysynth.generators.recipe import Budget, Recipe, Training, prompt_dropout, recipe_of
from raysynth.knobs import decides

SETTLED = ("engine", "per", *(field.name for field in fields(Budget)))
"""Knobs of `finetune` that are told as the recipe settled them, the generator's own or not."""


SAMPLED = ("guidance_scale", "steps", "gaussian_above", "colours")
"""Knobs of `synthesis` that are told as the recipe settled them."""


def training_inputs(config: Any) -> dict[str, Any]:
    """All that fine-tuning depends on besides images, clusters and base: its digest's input.

    Two generators that train the same models (`shared` and `edit`) have the same.
    """
    recipe, settings = recipe_of(config), config.finetune
    training, asked = recipe.training, settings.prompt_dropout
    if training is None:
        return {"training": None}
    knobs = decides(settings, *SETTLED, "prompt_dropout", *_unused(training, settings))
    by_class = training.scope == "auto" and recipe.lender == "label"
    dropout = {"prompt_dropout": prompt_dropout(asked, training.scope)}
    if training.scope == "auto" and not by_class:  # one for all groups, or one per attribute
        dropout["per_attribute"] = prompt_dropout(asked, "attribute")
    return {
        "training": training.to_dict() | ({"lender": "label"} if by_class else {}),
        "knobs": knobs | dropout,
        "prompts": decides(config.prompts, "negative"),  # of images that are generated
        # Until 2026-11-29 gradients were divided by their number twice, before they were clipped.
        **({"micro_batches": "mean"} if settings.accumulation > 1 else {}),
    }


def _unused(training: Training, settings: Any) -> set[str]:
    """Knobs of `finetune` that this training does not read."""
    unused: set[str] = set()
    if training.engine != "lora":
        unused |= {"targets", "rank", "alpha", "rslora", "dora", "start_sha256"}
    if training.engine != "lora" or settings.start_sha256:  # told by what is in it
        unused |= {"start"}
    if not training.shared:  # all images are of one group
        unused |= {"oversample"}
    if not training.budget.prior_weight:
        unused |= {"prior_images"}
    if not settings.patience:  # nothing is held out
        unused |= {"evaluate_steps", "holdout"}
    if settings.experts == 1:
        unused |= {"experts_share", "experts_by"}
    return unused


def synthesis_inputs(config: Any) -> dict[str, Any]:
    """All that generation depends on besides models and clusters: its digest's input."""
    recipe = recipe_of(config)
    unread = _unread(recipe) | (set() if config.synthesis.rebalance.on else {"rebalance"})
    return {
        "generator": {"name": recipe.name, "guidance_scale": recipe.guidance_scale},
        "knobs": decides(config.synthesis, *SAMPLED, *unread) | {"steps": recipe.steps},
        **({"begins": recipe.begins} if recipe.midway else {}),
        **({"colours": "matched"} if recipe.recolours else {}),
        "prompts": decides(config.prompts),
        "min_images": recipe.min_images,
        # Until 2026-11-28 the other label's word was a negative prompt there.
        **({"small": "as the others"} if recipe.lent_by_attribute else {}),
    }


def _fuses(recipe: Recipe) -> bool:
    return recipe.training is not None and recipe.training.scope == "image"


def _unread(recipe: Recipe) -> set[str]:
    """Knobs of `synthesis` that images of this recipe do not depend on."""
    unread: set[str] = set()
    if not recipe.edits:
        unread |= {"strength", "mask"}
    if not recipe.masked:
        unread |= {"mask_margin", "strength_outside"}
    if not _fuses(recipe):
        unread |= {"fused"}
    one_each = recipe.training is not None and not recipe.training.shared
    if not (one_each and recipe.lent_by_attribute):
        # By class is what earlier versions did: their digests do not name it. A model of several
        # groups is told by its scope, which the training's digest has.
        unread |= {"lender"}
    return unread
