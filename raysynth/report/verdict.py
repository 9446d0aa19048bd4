"""Did synthesis help here? The rules of the verdict, what it means for a run, what to try next.

The verdict is of test, against the real-only reference that is best on test, which is the strictest
comparison. It helped where the paired 95 % interval of the difference in worst-group accuracy lies
above zero, and did not where it lies below, or where the search chose real images alone. Anything
else cannot be told from these images and seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysynth.evaluation.paired import Difference
from raysynth.groups.groups import FEW
from raysynth.references.titles import control_of
from raysynth.report.case import HELPED, NOT, UNKNOWN, Case
from raysynth.report.content import Content
from raysynth.report.following import GAP, following
from raysynth.report.tested import Tested


@dataclass(frozen=True)
class Verdict:
    """`word`: HELPED, NOT or UNKNOWN; why, and what to try next, a sentence each."""

    word: str
    because: tuple[str, ...]
    following: tuple[str, ...]

    @property
    def spoken(self) -> str:
        """The verdict as a sentence's beginning."""
        return {
            HELPED: "Synthesis helped",
            NOT: "Synthesis did not help",
            UNKNOWN: "Whether synthesis helped cannot be told",
        }[self.word]


def judge(content: Content, tested: Tested | None) -> Verdict:
    """The verdict of a finished run; `tested`: None, where it kept no predictions."""
    case = Case(content, tested)
    because = (_of_difference(case), _of_control(case), _of_gap(case), _of_few(case))
    return Verdict(case.word, tuple(filter(None, because)), tuple(following(case)))


def spoken(difference: Difference) -> str:
    """`+12.5 points (95 % interval +6.1 to +18.0)`."""
    mean, low, high = (
        f"{100 * value:+.1f}".replace("-", "−")
        for value in (difference.mean, difference.low, difference.high)
    )
    return f"{mean} points (95 % interval {low} to {high})"


def _of_difference(case: Case) -> str:
    content, found = case.content, case.difference
    if content.ours is None:
        return "This run has no classifier of its own."
    if case.on_real_alone:
        return (
            "The search chose to train on real images alone: no synthetic image is in raysynth's "
            "classifier."
        )
    if content.best_reference is None:
        return "There is no real-only reference to compare with."
    if found is None:
        return "This run kept no predictions of its test images, so no interval is known."
    title = content.best_reference.title
    meaning = {
        HELPED: "The whole interval is above zero: more than these test images and seeds explain.",
        NOT: "The whole interval is below zero: real images alone are better here.",
        UNKNOWN: "The interval holds zero: these test images and seeds cannot tell the two apart.",
    }[case.word]
    return (
        f"Worst-group accuracy against {title}, the best of the real-only references on test: "
        f"{spoken(found)}. {meaning}"
    )


def _of_control(case: Case) -> str:
    control, ours = case.control, case.content.ours
    if control is None or ours is None:
        return ""
    found = case.against(control)
    told = f"{control.title}, without any generated image, has {100 * control.wga.mean:.1f} %"
    part = control_of(control.name)
    whose = part.whose if part else "it"
    if found is None:
        return f"{told}."
    if found.high < 0:
        return (
            f"{told}; raysynth against it: {spoken(found)}. What {whose} knows helps more "
            "when it is used directly than by way of images."
        )
    if found.low > 0:
        return (
            f"{told}; raysynth against it: {spoken(found)}. The gain is more than what {whose} "
            "knows by itself."
        )
    return (
        f"{told}; raysynth against it: {spoken(found)}. So the gain may be no more than what "
        f"{whose} knows by itself."
    )


def _of_gap(case: Case) -> str:
    ours, gap = case.content.ours, case.gap
    if ours is None or np.isnan(gap) or abs(gap) < GAP:
        return ""
    said = (
        f"raysynth's worst-group accuracy is {100 * ours.validation:.1f} % on validation and "
        f"{100 * ours.wga.mean:.1f} % on test"
    )
    if gap < 0:
        return f"{said}: the two splits differ by more than a choice by validation explains."
    return (
        f"{said}: every choice was made on validation, whose small groups then look better than "
        "they are. Believe the number on test."
    )


def _of_few(case: Case) -> str:
    """What a group of n test images does to WGA."""
    few = case.small("test")
    if not few:
        return ""
    least = int(case.content.counts["test"].min())
    return (
        f"Fewer than {FEW} test images: {', '.join(few)}. Worst-group accuracy can move in steps "
        f"of 1/{least}, {100 / least:.1f} points, by a single image."
    )
