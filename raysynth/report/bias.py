"""Is the data biased: what the groups' numbers and plain training say of it, in words."""

from __future__ import annotations

import numpy as np

from raysynth.report.case import small
from raysynth.report.content import Content, Method

BIASED = 0.1
"""ERM's accuracy of aligned minus conflicting groups, from which the data is called biased."""
ERM = "erm"


def erm_of(content: Content) -> Method | None:
    """Plain training, if it is among the references."""
    return next((method for method in content.methods if method.name == ERM), None)


def answer(content: Content) -> str:
    """Whether the data is biased, and by what this is seen."""
    counts, aligned = content.counts["train"], list(content.aligned)
    share = counts[aligned].sum() / counts.sum()
    smallest = int(counts.argmin())
    lopsided = (
        f"{100 * share:.1f} % of the training images show what goes with their class; the smallest "
        f"group, {content.groups.names[smallest]}, has {int(counts[smallest]):,} of "
        f"{int(counts.sum()):,}"
    )
    found = erm_of(content)
    conflicting = [g for g in range(content.groups.count) if g not in content.aligned]
    if found is None or content.is_regrouped or not conflicting:
        return f"{lopsided}. What that does to plain training was not measured per group here."
    means = np.array([spread.mean for spread in found.groups])
    own, other = means[aligned].mean(), means[conflicting].mean()
    told = (
        f"plain training (ERM) is right on {100 * own:.1f} % of the bias-aligned groups' test "
        f"images and on {100 * other:.1f} % of the others'"
    )
    if own - other >= BIASED:
        return f"Yes. {lopsided}, and {told}: it reads the attribute in place of the label."
    return f"Hardly, by what plain training does. {lopsided}, yet {told}."


def few(content: Content) -> list[str]:
    """A sentence on every split with groups of few images."""
    found = []
    for split, decides in (("validation", "choices are made"), ("test", "results are measured")):
        if told := small(content, split):
            least = int(content.counts[split].min())
            found.append(
                f"Few {split} images, by which {decides}: {', '.join(told)}. Accuracy of the "
                f"smallest group moves in steps of 1/{least}, {100 / least:.1f} points, so one "
                "image can decide."
            )
    return found


def generated(content: Content) -> str:
    """How many images were made, kept and why not, and whether they show their label."""
    made, kept, copies = (int(n.sum()) for n in (content.candidates, content.kept, content.copies))
    said = (
        f"{made:,} images for {content.groups.count} groups: {kept:,} kept, {copies:,} rejected as"
    )
    said += f" copies of training images, {made - kept - copies:,} for their score or number."
    groups = content.fidelity.get("groups", {})
    shares = {
        name: group["agreement"]["kept"]["label"]
        for name, group in groups.items()
        if group["agreement"]["kept"]["label"] is not None
    }
    if not shares:
        return said
    worst = min(shares, key=lambda name: shares[name])
    real = groups[worst]["agreement"]["real"]["label"]
    beside = "" if real is None else f" (of its real images {100 * real:.1f} %)"
    return (
        f"{said} A probe of real images sees the label in {100 * shares[worst]:.1f} % of the kept "
        f"images of the worst group, {worst}{beside}."
    )
