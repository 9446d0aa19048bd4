"""The kinds of classifiers that a run measures, and how tables, plots and sentences call them."""

from __future__ import annotations

from dataclasses import dataclass

OURS = "raysynth"
"""The method's own: name and kind of its row."""


@dataclass(frozen=True)
class Kind:
    """Words for one kind.

    `rows`: of several, as a plot's title. `tag`: of one, beside its name in a table. `told`: of
    one, in a sentence. `of_references`: measured by the stage of references, so that runs with the
    same real images share it. `is_trained`: a network is trained and kept, which can be shipped.
    """

    rows: str
    tag: str
    told: str
    of_references: bool = False
    is_trained: bool = True


KINDS = {
    OURS: Kind("raysynth", "", ""),
    "reference": Kind("real images only", "real only", "real images only", of_references=True),
    "mixture": Kind("mixtures", "mixed in", "mixed in"),
    "control": Kind("controls", "control", "a control", of_references=True, is_trained=False),
}
"""In the order of tables and plots."""
REFERENCE_KINDS = tuple(name for name, kind in KINDS.items() if kind.of_references)
