"""What fine-tuning and synthesis depend on: their digests' inputs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raysynth.generators.lending import _lent_by_attribute
from raysynth.generators.recipe import prompt_dropout, recipe_of
from raysynth.knobs import decides

if TYPE_CHECKING:
    from raysynth.config.config import Config


def training_inputs(config: Config) -> dict[str, Any]:
    """All that fine-tuning depends on besides images, clusters and base: its digest's input.

    Two generators that train the same models (`shared` and `edit`) have the same.
    """
    training, settings = recipe_of(config).training, config.finetune
    if training is None:
        return {"training": None}
    knobs = {"min_images", "accumulation", "weight_decay", "max_grad_norm", "flip"}
    knobs |= {"precision", "gradient_checkpointing", "overrides", "patience"}
    if training.engine == "lora":
        knobs |= {"targets", "rank", "alpha"}
    if training.shared:
        knobs.add("oversample")
    if training.prior_weight:
        knobs.add("prior_images")
    if settings.patience:
        knobs |= {"evaluate_steps", "holdout"}
    by_class = training.scope == "auto" and config.synthesis.lender == "label"
    dropout = {"prompt_dropout": prompt_dropout(settings, training.scope)}
    if training.scope == "auto" and not by_class:  # one for all groups, or one per attribute
        dropout["per_attribute"] = prompt_dropout(settings, "attribute")
    return {
        "training": asdict(training) | ({"lender": "label"} if by_class else {}),
        "knobs": settings.model_dump(mode="json", include=knobs) | dropout,
        "prompts": config.prompts.model_dump(mode="json", include={"template", "token"}),
        # Until 2026-11-29 gradients were divided by their number twice, before they were clipped.
        **({"micro_batches": "mean"} if settings.accumulation > 1 else {}),
    }


def synthesis_inputs(config: Config) -> dict[str, Any]:
    """All that generation depends on besides models and clusters: its digest's input."""
    recipe = recipe_of(config)
    knobs = {"images_per_group", "steps", "solver", "image_size", "rows_per_shard"}
    if recipe.edits:
        knobs |= {"strength", "mask"}
        if recipe.masked:
            knobs |= {"mask_margin", "strength_outside"}
    if config.synthesis.compile:  # rounds elsewhere
        knobs.add("compile")
    knobs |= {"guidance", "scorers"} & decides(config.synthesis).keys()
    by_attribute = _lent_by_attribute(config)
    if by_attribute and recipe.training is not None and not recipe.training.shared:
        knobs.add("lender")
    return {
        "generator": {"name": recipe.name, "guidance_scale": recipe.guidance_scale},
        "knobs": config.synthesis.model_dump(mode="json", include=knobs),
        "prompts": config.prompts.model_dump(mode="json"),
        "min_images": config.finetune.min_images,
        # Until 2026-11-28 the other label's word was a negative prompt there.
        **({"small": "as the others"} if by_attribute else {}),
    }
