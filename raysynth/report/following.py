"""What to try next: the rules, most urgent first, and the sentence of each."""

from __future__ import annotations

from collections.abc import Callable

from raysynth.groups.groups import FEW
from raysynth.references.titles import control_of
from raysynth.report.case import HELPED, NOT, UNKNOWN, Case

GAP = 0.05
"""From which validation and test are said to differ."""
Rule = tuple[Callable[[Case], bool], Callable[[Case], str]]


def following(case: Case) -> list[str]:
    """What to try next, most urgent first."""
    return [said(case) for holds, said in RULES if holds(case)]


def _unfaithful(case: Case) -> bool:
    return bool(case.content.fidelity.get("unfaithful"))


def _other_is_shipped(case: Case) -> bool:
    shipped, ours = case.content.model, case.content.ours
    return bool(shipped and ours and shipped.name != ours.name)


def _control_wins(case: Case) -> bool:
    found = case.against(case.control)
    return found is not None and found.high < 0


def _said_of_control(case: Case) -> str:
    control = case.control
    part = control_of(control.name) if control else None
    if part is None:
        return "Try a classifier.backbone that starts from what the control knows."
    return f"Try classifier.backbone={part.backbone}: start from what {part.whose} already knows."


def _at_most_images(case: Case) -> bool:
    best, ratios = case.content.best.get("parameters", {}), case.content.config.search.ratios
    return len(ratios) > 1 and best.get("ratio") == max(ratios) > 0


def _few_seeds(case: Case) -> bool:
    ours = case.content.ours
    return case.word == UNKNOWN and ours is not None and len(ours.wga.seeds) < 10


def _said_of_unfaithful(case: Case) -> str:
    groups = ", ".join(case.content.fidelity["unfaithful"])
    return (
        f"Synthetic images of {groups} do not show their label: look at them below, then change "
        "the words (dataset.label_words, prompts.template), the base model (base.name), or train "
        "longer (finetune.steps)."
    )


def _said_of_shipped(case: Case) -> str:
    shipped = case.content.model
    assert shipped is not None
    return (
        f"Use what is in classifier/model: {shipped.title}, which validation likes best "
        "(`raysynth export raysynth` gives raysynth's own)."
    )


RULES: tuple[Rule, ...] = (
    (_unfaithful, _said_of_unfaithful),
    (_other_is_shipped, _said_of_shipped),
    (
        lambda case: bool(case.small("validation")),
        lambda case: (
            f"More validation images: {', '.join(case.small('validation'))} are fewer than {FEW}, "
            "and every choice hangs on them."
        ),
    ),
    (
        lambda case: bool(case.small("test")),
        lambda case: "More test images of the groups with few, before a number is believed.",
    ),
    (
        _control_wins,
        _said_of_control,
    ),
    (
        _few_seeds,
        lambda case: "More seeds narrow the interval: classifier.seeds=10 references.seeds=10.",
    ),
    (
        _at_most_images,
        lambda case: (
            "The search took the highest synthetic ratio that it was given: try more, "
            "search.ratios=[0, 0.5, 1, 2]."
        ),
    ),
    (
        lambda case: case.word == NOT and not _unfaithful(case),
        lambda case: "Try generator=vanilla and generator=shared: other images, same command.",
    ),
    (
        lambda case: case.gap >= GAP,
        lambda case: (
            "More validation images, or fewer trials (search.trials): choices were fitted to it."
        ),
    ),
    (
        lambda case: case.word == HELPED,
        lambda case: (
            "Run again with another seed (seed=1) before relying on it: data, images and trainings "
            "are drawn anew, which this page's intervals do not cover."
        ),
    ),
)
"""(when, what to say) of every next step."""
