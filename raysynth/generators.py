"""The generators, each a recipe: what is fine-tuned on which images, and how images are made.

`vanilla`, `lora`, `dreambooth` and `clustered_dreambooth` are the four of Basu et al.
(arXiv 2511.08711); `shared` and `edit` are ours. The paper publishes no training settings: the
budgets are ours, measured on the embedded base (benchmarks/generators.py). What the configuration
says explicitly wins over them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from raysynth.config import Config, FinetuneConfig
from raysynth.errors import DataError
from raysynth.groups import Groups, aligned_groups, largest_groups

Engine = Literal["lora", "full"]
Scope = Literal["group", "group_cluster", "class", "attribute", "all", "auto"]


@dataclass(frozen=True)
class Training:
    """How a generator's models are fine-tuned."""

    engine: Engine
    """lora: adapters; full: all weights of the UNet."""
    scope: Scope
    """What one model is trained on: a group, a cluster of one, the groups of a class or of an
    attribute, or all; auto until the data are known (`settled`)."""
    steps: int
    """Optimizer steps of a model, at most."""
    max_passes: float
    """Most times that a model sees each of its images."""
    batch_size: int
    """Images per step, at most."""
    learning_rate: float
    """AdamW's peak."""
    ema: float
    """Decay of the weights' moving average that is kept; 0: the last weights."""
    prior_weight: float
    """DreamBooth's prior preservation; 0: off."""

    @property
    def shared(self) -> bool:
        """Whether a model speaks for several groups."""
        return self.scope in ("class", "attribute", "all", "auto")


@dataclass(frozen=True)
class Recipe:
    """One generator as a run uses it."""

    name: str
    training: Training | None
    """None: the base model as it is."""
    token: bool
    """Whether prompts hold DreamBooth's rare token, where the model was trained on the group."""
    edits: bool
    """Whether real images are edited (SDEdit) instead of images drawn from noise."""
    masked: bool
    """Whether only what the attribute's words are about is edited at full strength (DiffEdit)."""
    strength: float
    """Noise put on an edited image, as a share of the schedule; with a mask: inside it."""
    guidance_scale: float

    def evaluations(self, steps: int) -> int:
        """Times that the UNet sees an image of `steps` solver steps, its mask included."""
        return steps * (2 if self.guidance_scale > 1 else 1) + 2 * MASK_DRAWS * self.masked


@dataclass(frozen=True)
class Budget:
    """Defaults of one engine, for models of one group (or cluster), or of several groups."""

    steps: int
    max_passes: float
    batch_size: int
    learning_rate: float
    ema: float
    prior_weight: float
    guidance_scale: float


BUDGETS: dict[tuple[Engine, bool], Budget] = {
    ("lora", False): Budget(120, 75.0, 12, 2e-3, 0.0, 0.0, 2.0),
    ("lora", True): Budget(240, 75.0, 32, 2e-3, 0.0, 0.0, 2.0),
    ("full", False): Budget(40, 75.0, 32, 2e-4, 0.0, 1.0, 2.0),
    ("full", True): Budget(150, 75.0, 64, 4e-4, 0.0, 0.0, 3.0),
}
"""(engine, one model for several groups) -> defaults.

From benchmarks/generators.py and benchmarks/passes.py on outfits at severity 0.99; the LoRA of
several groups has not been tuned.
"""

_OWN: dict[str, tuple[Engine, Scope]] = {
    "lora": ("lora", "group"),
    "dreambooth": ("full", "group"),
    "clustered_dreambooth": ("lora", "group_cluster"),
    "shared": ("full", "auto"),
    "edit": ("full", "auto"),
}


UNMASKED = 0.85
"""Strength of edits of whole images: less leaves a trace of the old attribute (decisions/021)."""

PROMPT_DROPOUT = 0.1
"""Share of images that are trained without prompt (Ho & Salimans 2022: 0.1 and 0.2 do best)."""

MASK_DRAWS = 4
"""Noises that a mask is averaged over (DiffEdit's are 10; 8 overlap no better, decisions/021)."""

AUTO = "auto"
"""`generator`: several are tried, and each group takes its images from the one that suits it."""


def candidates(config: Config) -> list[Config]:
    """The configuration with each generator that `auto` tries; itself for any other generator."""
    if config.generator != AUTO:
        return [config]
    return [config.model_copy(update={"generator": name}) for name in config.candidates]


def recipe_of(config: Config) -> Recipe:
    """The recipe of the configured generator, every number of it settled."""
    name, settings = config.generator, config.finetune
    guidance = config.synthesis.guidance_scale
    if name == "vanilla":
        plain = BUDGETS["lora", False].guidance_scale
        return Recipe(
            name=name,
            training=None,
            token=False,
            edits=False,
            masked=False,
            strength=1.0,
            guidance_scale=plain if guidance is None else guidance,
        )
    engine, scope = _OWN[name]
    if settings.engine != "auto":
        engine = settings.engine
    several = scope == "auto"
    if several:
        scope = settings.per
    budget = BUDGETS[engine, several]
    chosen = {
        key: value if (own := getattr(settings, key)) is None else own
        for key, value in asdict(budget).items()
        if key != "guidance_scale"
    }
    edits = name == "edit"
    masked = edits and config.synthesis.mask != "none"
    return Recipe(
        name=name,
        training=Training(engine=engine, scope=scope, **chosen),
        token=True,
        edits=edits,
        masked=masked,
        strength=config.synthesis.strength or (1.0 if masked else UNMASKED),
        guidance_scale=budget.guidance_scale if guidance is None else guidance,
    )


def prompt_dropout(settings: FinetuneConfig, scope: str) -> float:
    """Share of a model's images that are trained without their prompt.

    None for a model per attribute unless it is asked for: what such a model draws without words is
    the label it saw, guidance steers away from it, and the other label's images come out purer than
    real ones (docs/decisions/012-prompt-dropout.md).

    Parameters
    ----------
    scope : what the model is trained on, see `Training.scope`.
    """
    if settings.prompt_dropout is not None:
        return settings.prompt_dropout
    return 0.0 if scope == "attribute" else PROMPT_DROPOUT


def trained_groups(counts: np.ndarray, min_images: int) -> np.ndarray:
    """[G] bool, groups whose images are trained on: those with `finetune.min_images`."""
    return np.asarray(counts) >= min_images


def settled(config: Config, counts: np.ndarray) -> Config:
    """The configuration with `finetune.per: auto` as the data decide it.

    One model for all groups learns the shape from the many and the attribute from the words, if it
    sees every attribute with every class. Where a group is too small to be trained on, what it
    learns of an attribute's look is its class's look too: a model per attribute cannot tell them
    apart (docs/results.md, severity 0.999). Where the paper's rule is asked for
    (`synthesis.lender: label`) it is a model per class, whose aligned group then speaks for the
    small one.

    Parameters
    ----------
    counts : [G] training images per group.
    """
    if config.finetune.per != "auto":
        return config
    per = "all"
    if not trained_groups(counts, config.finetune.min_images).all():
        per = "class" if config.synthesis.lender == "label" else "attribute"
    return config.model_copy(update={"finetune": config.finetune.model_copy(update={"per": per})})


def lending_group(config: Config, counts: np.ndarray, groups: Groups, group: int) -> int:
    """The group whose models speak for one that has too few images for a model of its own.

    The largest group of its attribute (`synthesis.lender: attribute`, or models per attribute), if
    that has a model; else its class's (`class_lender`).

    Parameters
    ----------
    counts : [G] training images per group.
    """
    counts = np.asarray(counts)
    if _lent_by_attribute(config):
        same = np.arange(groups.attribute(group), groups.count, len(groups.attribute_names))
        lender = int(same[counts[same].argmax()])
        if trained_groups(counts, config.finetune.min_images)[lender]:
            return lender
    return class_lender(config, counts, groups, group)


def _lent_by_attribute(config: Config) -> bool:
    """Whether a small group may be drawn by a model of its attribute instead of its class."""
    training = recipe_of(config).training
    if training is None or training.scope in ("all", "class"):
        return False
    return training.scope == "attribute" or config.synthesis.lender == "attribute"


def class_lender(config: Config, counts: np.ndarray, groups: Groups, group: int) -> int:
    """The aligned group of a group's class (Basu et al., arXiv 2511.08711).

    The class's largest where the aligned one is itself too small to be trained on.
    """
    aligned = int(aligned_groups(counts, groups)[groups.label(group)])
    if trained_groups(counts, config.finetune.min_images)[aligned]:
        return aligned
    return int(largest_groups(counts, groups)[groups.label(group)])


def check_groups(counts: np.ndarray, groups: Groups, config: Config) -> None:
    """Refuse a data set that leaves a class without any image to train on.

    Parameters
    ----------
    counts : [G] training images per group.

    Raises
    ------
    DataError
        The largest group of a class has fewer than `finetune.min_images` images.
    """
    if recipe_of(config).training is None:
        return
    enough = trained_groups(counts, config.finetune.min_images)
    short = [g for g in largest_groups(counts, groups).tolist() if not enough[g]]
    if short:
        sizes = ", ".join(f"{groups.name(g)}: {int(counts[g])}" for g in short)
        raise DataError(
            f"finetune.min_images={config.finetune.min_images}: no group of the class has as many "
            f"training images (largest: {sizes}); expected at least one such group per class. Fix: "
            f"finetune.min_images={max(1, int(min(counts[g] for g in short)))}, more images, or "
            "generator=vanilla"
        )


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
