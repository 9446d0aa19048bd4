"""What an audit found, and what it means: the verdict and the next step, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from raysynth.groups.groups import FEW, Groups
from raysynth.inspection.heads import Head
from raysynth.inspection.properties import CLEARLY, FIX, Double, Property

GAP = 0.10
"""Between the average and the worst group, from which a plain head is called unfair."""
CLOSED = 0.05
"""The same of a balanced head, up to which balancing is called enough."""


@dataclass(frozen=True)
class Findings:
    """What was found in a data set."""

    name: str
    groups: Groups
    """Of classes alone where attributes are not known."""
    counts: Mapping[str, np.ndarray]
    """Split -> [G] images, all of them."""
    known: bool
    """Whether attributes are."""
    association: float
    """Cramér's V of label and attribute in training; NaN where attributes are not known."""
    encoder: str
    heads: list[Head]
    properties: list[Property] | None
    """None: cleanvision is not installed."""
    doubles: list[Double]
    looked_at: int
    unreadable: int
    seconds: float
    source: str = ""
    """How the data set was named, for the commands that are said."""
    samples: Mapping[int, list[bytes]] = field(default_factory=dict, repr=False)
    """Group -> some training images."""

    @property
    def names(self) -> list[str]:
        """Of the groups, or of the labels where these are all that is known."""
        return self.groups.names if self.known else list(self.groups.label_names)

    @property
    def plain(self) -> Head:
        """The head that minimises the mean error."""
        return self.heads[0]

    @property
    def balanced(self) -> Head:
        """The head to which all groups count the same."""
        return self.heads[1]

    @property
    def verdict(self) -> str:
        """One or two sentences on the data set."""
        return _verdict(self)

    @property
    def next_step(self) -> str:
        """What to do now."""
        return _next(self)

    @property
    def warnings(self) -> list[str]:
        """What else was seen, a sentence each."""
        return _warnings(self)


def is_unfair(audit: Findings) -> bool:
    """Whether the plain head's worst group is clearly below the average: by GAP and two errors."""
    plain = audit.plain
    return plain.aga - plain.wga > max(GAP, 2 * plain.error)


def cannot_be_told(audit: Findings) -> bool:
    """Whether the worst group has too few validation images to say that it is not unfair."""
    return int(audit.plain.images[audit.plain.worst]) < FEW and not is_unfair(audit)


def _verdict(audit: Findings) -> str:
    plain, balanced, names = audit.plain, audit.balanced, audit.names
    worst, n = names[plain.worst], int(plain.images[plain.worst])
    told = (
        f"a plain classifier on {audit.encoder} features is right for {plain.wga:.0%} of {worst} "
        f"({n} validation images), {plain.aga:.0%} on average over "
        f"{'groups' if audit.known else 'labels'}; balanced: {balanced.wga:.0%} in its worst "
        f"({names[balanced.worst]}), {balanced.aga:.0%} on average"
    )
    if not audit.known:
        return f"Attributes are not known, so groups cannot be compared. Of the labels: {told}."
    if cannot_be_told(audit):
        return f"Cannot be told: {worst} has {n} validation images. So far, {told}."
    if is_unfair(audit):
        enough = balanced.aga - balanced.wga <= CLOSED
        after = "balancing closes most of the gap" if enough else "balancing does not close the gap"
        return f"Biased, and it shows: {told}; {after}."
    return f"No clear harm seen: {told}."


def _next(audit: Findings) -> str:
    source = audit.source or "CONFIG"
    if not audit.known:
        return (
            "Find the groups: `dataset.attributes=unknown` with a vocabulary of what images may "
            "show (docs/tutorial.md), or name the attribute of some images yourself."
        )
    if cannot_be_told(audit):
        name = audit.names[audit.plain.worst]
        return f"{FEW} or more validation images of {name}, then this again."
    if is_unfair(audit) and audit.balanced.aga - audit.balanced.wga > CLOSED:
        return f"Balancing is not enough here; try synthesis: `raysynth plan {source}`, then `run`."
    if is_unfair(audit):
        return (
            "A balanced head may do: `raysynth run` trains it beside the method and ships what "
            "validation likes best."
        )
    return (
        "Look at other attributes, or at a classifier of your own: a bias that these features do "
        "not pick up may still be learnt by a network that is trained."
    )


def _warnings(audit: Findings) -> list[str]:
    found = []
    if audit.properties is None:
        found.append(f"image properties and doubles were not looked at: {FIX}")
    chance = 1 / len(audit.groups.label_names)
    for each in audit.properties or ():
        if each.label > chance + CLEARLY:
            also = ""
            if each.attribute is not None and each.attribute > each.label:
                also = f"; it tells the attribute too ({each.attribute:.0%})"
            found.append(
                f"{each.name} alone tells the label at {each.label:.0%} balanced accuracy (chance "
                f"{chance:.0%}){also}: a shortcut that a classifier may take"
            )
    for what, chosen in (
        ("in different splits, so accuracies on them are memory", "crosses"),
        ("with different labels, of which one is wrong", "contradicts"),
    ):
        wrong = [double for double in audit.doubles if getattr(double, chosen)]
        if wrong:
            shown = ", ".join(wrong[0].ids[:3])
            found.append(f"{len(wrong)} set(s) of images that look alike {what} (e.g. {shown})")
    if audit.unreadable:
        found.append(f"{audit.unreadable} image(s) cannot be read")
    return found
