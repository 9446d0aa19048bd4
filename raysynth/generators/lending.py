"""Groups too small to be trained on, and whose models speak for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raysynth.errors import DataError
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups, aligned_groups, largest_groups

if TYPE_CHECKING:
    from raysynth.config.config import Config


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
