"""Guidance: what is made of a step's predictions under several conditions, before the solver.

A term is a file of `raysynth/synthesis/guidances`. It says which rows a step needs besides the
prompt's; how often the network sees an image follows from that. Terms are applied in order, each to
what those before it made of the prompt's prediction. They keep no state: actors are threaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raysynth.errors import ConfigError
from raysynth.knobs import Section
from raysynth.registry import Chosen, Registry

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.models.prediction import Predicted

NEGATIVE, EMPTY, PROMPT = "negative", "empty", "prompt"
ROWS = (NEGATIVE, EMPTY, PROMPT)
"""Conditions that a spec has: its negative prompt, no words, its prompt."""


@dataclass(frozen=True)
class Level:
    """Where a step is."""

    timestep: Tensor
    """One for all rows, on the device."""
    step: int
    steps: int
    scale: float
    """`synthesis.guidance_scale`, or the generator's own."""


class Guidance(Protocol):
    """One way to guide."""

    title: str
    source: str
    Knobs: type[Section]

    def conditions(self, scale: float, knobs: Any) -> tuple[str, ...]:
        """Names of the rows, of `ROWS`, that a step needs besides the prompt's."""

    def __call__(self, predicted: Mapping[str, Predicted], at: Level, knobs: Any) -> Predicted:
        """What is guided, of predictions by the name of their row; a pure function."""


GUIDANCE: Registry[Guidance] = Registry("raysynth.synthesis.guidances", "guidance term")


@dataclass(frozen=True)
class Guide:
    """The terms of a run, ready for its steps."""

    terms: tuple[tuple[Guidance, Any], ...]
    """Each with its knobs."""
    scale: float
    rows: tuple[str, ...]
    """What a step evaluates, the prompt last."""

    @property
    def copies(self) -> int:
        """Times that the network sees an image at a step."""
        return len(self.rows)

    def __call__(
        self, predicted: Mapping[str, Predicted], timestep: Tensor, step: int, steps: int
    ) -> Predicted:
        """What the solver is given, of predictions by the name of their row."""
        at, found = Level(timestep, step, steps, self.scale), dict(predicted)
        for term, knobs in self.terms:
            found[PROMPT] = term(found, at, knobs)
        return found[PROMPT]


def guide_of(chosen: Sequence[Chosen], scale: float) -> Guide:
    """The terms of `synthesis.guidance` at a guidance scale.

    Raises
    ------
    ConfigError
        A term needs a row that specs have not.
    """
    terms = tuple((GUIDANCE[one.name], one.knobs(GUIDANCE)) for one in chosen)
    needed: dict[str, None] = {}
    for one, (term, knobs) in zip(chosen, terms, strict=True):
        for row in term.conditions(scale, knobs):
            if row not in ROWS:
                raise ConfigError(
                    f"synthesis.guidance: {one.name} needs the condition {row!r}; expected some "
                    f"of {', '.join(ROWS)}. Fix: another guidance term"
                )
            needed[row] = None
    needed.pop(PROMPT, None)
    return Guide(terms, scale, (*needed, PROMPT))
