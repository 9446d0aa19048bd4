"""Groups too small to be trained on, and whose models speak for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raysynth.errors import DataError
from raysynth.generators.recipe import Recipe
from raysynth.groups.groups import Groups, aligned_groups, largest_groups


def trained_groups(counts: np.ndarray, min_images: int) -> np.ndarray:
    """[G] bool, groups whose images are trained on: those with `finetune.min_images`."""
    return np.asarray(counts) >= min_images


def settled(recipe: Recipe, counts: np.ndarray) -> Recipe:
    """The recipe with `finetune.per: auto` as the data decide it.

    One model for all groups learns the shape from the many and the attribute from the words, if it
    sees every attribute with every class. Where a group is too small to be trained on, what it
    learns of an attribute's look is its class's look too: a model per attribute cannot tell them
    apart (docs/results/outfits_lender.md). Where the paper's rule is asked for
    (`synthesis.lender: label`) it is a model per class, whose aligned group then speaks for the
    small one.

    Parameters
    ----------
    counts : [G] training images per group.
    """
    if recipe.training is None or recipe.training.scope != "auto":
        return recipe
    training = replace(recipe.training, scope="all")
    if not trained_groups(counts, recipe.min_images).all():
        training = replace(training, scope="class" if recipe.lender == "label" else "attribute")
    return replace(recipe, training=training)


def lending_group(recipe: Recipe, counts: np.ndarray, groups: Groups, group: int) -> int:
    """The group whose models speak for one that has too few images for a model of its own.

    The largest group of its attribute (`synthesis.lender: attribute`, or models per attribute), if
    that has a model; else its class's (`class_lender`).

    Parameters
    ----------
    counts : [G] training images per group.
    """
    counts = np.asarray(counts)
    if recipe.lent_by_attribute:
        same = np.arange(groups.attribute(group), groups.count, len(groups.attribute_names))
        lender = int(same[counts[same].argmax()])
        if trained_groups(counts, recipe.min_images)[lender]:
            return lender
    return class_lender(recipe, counts, groups, group)


def class_lender(recipe: Recipe, counts: np.ndarray, groups: Groups, group: int) -> int:
    """The aligned group of a group's class (Basu et al., arXiv 2511.08711).

    The class's largest where the aligned one is itself too small to be trained on.
    """
    aligned = int(aligned_groups(counts, groups)[groups.label(group)])
    if trained_groups(counts, recipe.min_images)[aligned]:
        return aligned
    return int(largest_groups(counts, groups)[groups.label(group)])


def check_groups(counts: np.ndarray, groups: Groups, recipe: Recipe) -> None:
    """Refuse a data set that leaves a class without any image to train on.

    Parameters
    ----------
    counts : [G] training images per group.

    Raises
    ------
    DataError
        The largest group of a class has fewer than `finetune.min_images` images.
    """
    if recipe.training is None:
        return
    enough = trained_groups(counts, recipe.min_images)
    short = [g for g in largest_groups(counts, groups).tolist() if not enough[g]]
    if short:
        sizes = ", ".join(f"{groups.name(g)}: {int(counts[g])}" for g in short)
        raise DataError(
            f"finetune.min_images={recipe.min_images}: no group of the class has as many "
            f"training images (largest: {sizes}); expected at least one such group per class. Fix: "
            f"finetune.min_images={max(1, int(min(counts[g] for g in short)))}, more images, or "
            "generator=vanilla"
        )
