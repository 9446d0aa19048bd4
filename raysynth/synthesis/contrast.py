"""What is said of an edited image for its mask: the words that are true of it, and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysynth.groups.groups import Groups, aligned_groups
from raysynth.groups.prompts import spoken
from raysynth.groups.settings import PromptConfig


@dataclass(frozen=True)
class Contrast:
    """What is said of an edited image for its mask."""

    true: str
    """Prompt of the group that it is of."""
    other: str
    """The same with another attribute: the target's, or, where that is the image's own, another."""


def contrasts(
    prompts: PromptConfig, groups: Groups, counts: Sequence[int] | np.ndarray
) -> tuple[Contrast, ...]:
    """[G] what is said of the images that are edited for each group.

    Images edited for their own group get a mask too, from the class's next attribute: were they
    regenerated as a whole, "regenerated in part" would be what tells the groups apart.

    Parameters
    ----------
    counts : [G] training images per group; the images of a class's aligned group are edited.
    """
    aligned = aligned_groups(np.asarray(counts), groups).tolist()
    found = []
    for g in range(groups.count):
        own, of_class = aligned[groups.label(g)], groups.of_label(groups.label(g))
        other = g if g != own else of_class[(of_class.index(own) + 1) % len(of_class)]
        found.append(Contrast(spoken(prompts, groups, own), spoken(prompts, groups, other)))
    return tuple(found)
