"""Guidance: what is made of a step's predictions under several conditions, before the solver.

A term is a file of `raysynth/synthesis/guidances`. It says which rows a step needs besides the
prompt's; how often the network sees an image follows from that. Terms are applied in order, each to
what those before it made of the prompt's prediction, at the noise levels of their `interval`, if
their knobs have one (`Within`). They keep no state: actors are threaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from pydantic import model_validator

from raysynth.errors import ConfigError
from raysynth.knobs import Section, Share, Span, knob
from raysynth.registry import Chosen, Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from raysynth.models.prediction import Predicted

NEGATIVE, EMPTY, PROMPT = "negative", "empty", "prompt"
LABEL, ATTRIBUTE = "label", "attribute"
ROWS = (NEGATIVE, EMPTY, LABEL, ATTRIBUTE, PROMPT)
"""Conditions that a spec has: its negative prompt, no words, its label alone, its attribute alone,
its prompt."""


EVERYWHERE = (0.0, 1.0)


class Within(Section):
    """The knobs of a term that is applied at some levels only."""

    interval: tuple[Share, Share] = knob(
        EVERYWHERE,
        "Lowest and highest noise level, as shares of the noise schedule, at which the term is "
        "applied; at others its rows are not evaluated.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.interval[0] > self.interval[1]:
            raise ValueError(
                f"interval: got {list(self.interval)}, expected the lower level first. Fix: "
                f"interval={[*self.interval[::-1]]}"
            )
        return self


@dataclass(frozen=True)
class Aim:
    """Where a term that is fitted to real images takes the rows of a batch."""

    fit: Mapping[str, Tensor]
    """What `Fitted.fit` found."""
    group: Tensor
    """[B] int64."""
    number: Tensor
    """[B] int64 each row's aim, of those that its group has; -1: none, it is left alone."""


@dataclass(frozen=True)
class Level:
    """Where a step is."""

    timestep: Tensor
    """One for all rows, on the device."""
    step: int
    steps: int
    scale: float
    """`synthesis.guidance_scale`, or the generator's own."""
    aim: Aim | None = None
    """Of a term that is fitted."""


class Guidance(Protocol):
    """One way to guide."""

    title: str
    source: str
    Knobs: type[Section]

    def conditions(self, scale: float, knobs: Any) -> tuple[str, ...]:
        """Names of the rows, of `ROWS`, that a step needs besides the prompt's."""

    def __call__(self, predicted: Mapping[str, Predicted], at: Level, knobs: Any) -> Predicted:
        """What is guided, of predictions by the name of their row; a pure function."""


@dataclass(frozen=True)
class Fit:
    """What a term learnt of a run's real images."""

    tensors: Mapping[str, Tensor]
    """Kept beside the images while these are drawn."""
    aims: tuple[int, ...]
    """[G] how many aims the images of each group take in turn; 0: its images have none."""


@runtime_checkable
class Fitted(Guidance, Protocol):
    """A way to guide that learns of the run's real images first."""

    def fit(self, latents: Tensor, group: np.ndarray, groups: int, seed: int, knobs: Any) -> Fit:
        """What is learnt of [N, C, H, W] latents and their [N] groups; `seed`: the run's."""


@runtime_checkable
class Instead(Guidance, Protocol):
    """A way to guide that makes the prompt's prediction itself: none is before it."""

    without_prompt: bool
    """Always: where it is applied, the prompt is not evaluated."""


GUIDANCE: Registry[Guidance] = Registry("raysynth.synthesis.guidances", "guidance term")


@dataclass(frozen=True)
class Term:
    """A term of a run."""

    name: str
    guidance: Guidance
    knobs: Any
    rows: tuple[str, ...]
    """What it asks for besides the prompt's."""
    aim: Aim | None = None
    """Of a batch, where the term is fitted to real images."""

    def at(self, level: float) -> bool:
        """Whether it is applied at a noise level."""
        low, high = self.interval
        return low <= level <= high

    @property
    def interval(self) -> Span:
        """Levels at which it is applied."""
        return self.knobs.interval if isinstance(self.knobs, Within) else EVERYWHERE


@dataclass(frozen=True)
class Guide:
    """The terms of a run, ready for its steps."""

    terms: tuple[Term, ...]
    scale: float

    @property
    def everywhere(self) -> bool:
        """Whether all steps evaluate the same rows, whatever their level."""
        return all(term.interval == EVERYWHERE for term in self.terms)

    @property
    def fitted(self) -> tuple[Term, ...]:
        """The terms that learn of real images first."""
        return tuple(term for term in self.terms if isinstance(term.guidance, Fitted))

    def aimed(
        self,
        fits: Mapping[str, Mapping[str, Tensor]],
        group: Tensor,
        aims: Mapping[str, Tensor],
    ) -> Guide:
        """The guide of a batch.

        Parameters
        ----------
        fits : name of a term that is fitted -> what it learnt.
        group : [B] int64 of the rows.
        aims : name -> [B] int64, see `Aim`.
        """
        names = [term.name for term in self.fitted]
        aim_of = {name: Aim(fits[name], group, aims[name]) for name in names}
        return replace(self, terms=tuple(replace(t, aim=aim_of.get(t.name)) for t in self.terms))

    @property
    def alone(self) -> bool:
        """Whether steps may evaluate the label's word, or the attribute's, by itself."""
        return LABEL in self.rows or ATTRIBUTE in self.rows

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """What a step may evaluate, the prompt last, if any step evaluates it."""
        rows, first = _rows(self.terms), self.terms[:1]
        if PROMPT in rows or first[0].interval == EVERYWHERE:
            return rows
        return (*rows, PROMPT)

    def rows_at(self, level: float) -> tuple[str, ...]:
        """Those of `rows` that a step at this level evaluates, in their order."""
        needed = _rows([term for term in self.terms if term.at(level)])
        return tuple(row for row in self.rows if row in needed)

    def evaluations(self, steps: int | Sequence[float]) -> int:
        """Times that the network sees an image; `steps`: their levels, or how many even ones."""
        if isinstance(steps, int):
            steps = [1 - step / steps for step in range(steps)]
        return sum(len(self.rows_at(level)) for level in steps)

    def __call__(
        self,
        predicted: Mapping[str, Predicted],
        timestep: Tensor,
        step: int,
        steps: int,
        level: float = 1.0,
    ) -> Predicted:
        """What the solver is given, of predictions by the name of their row; `rows_at(level)`."""
        at, found = Level(timestep, step, steps, self.scale), dict(predicted)
        for term in self.terms:
            if term.at(level):
                here = at if term.aim is None else replace(at, aim=term.aim)
                found[PROMPT] = term.guidance(found, here, term.knobs)
        return found[PROMPT]


def _rows(terms: Sequence[Term]) -> tuple[str, ...]:
    """Each row that terms ask for once, the prompt last; without it where the first needs none."""
    asked = dict.fromkeys(row for term in terms for row in term.rows)
    asked.pop(PROMPT, None)
    instead = bool(terms) and isinstance(terms[0].guidance, Instead)
    return tuple(asked) if instead else (*asked, PROMPT)


def guide_of(chosen: Sequence[Chosen], scale: float) -> Guide:
    """The terms of `synthesis.guidance` at a guidance scale.

    Raises
    ------
    ConfigError
        A term needs a row that specs have not, takes the place of one before it, or is fitted to
        real images twice.
    """
    terms: list[Term] = []
    for one in chosen:
        guidance, knobs = GUIDANCE[one.name], one.knobs(GUIDANCE)
        rows = tuple(guidance.conditions(scale, knobs))
        if others := [row for row in rows if row not in ROWS]:
            raise ConfigError(
                f"synthesis.guidance: {one.name} needs the condition {others[0]!r}; expected some "
                f"of {', '.join(ROWS)}. Fix: another guidance term"
            )
        if terms and isinstance(guidance, Instead):
            raise ConfigError(
                f"synthesis.guidance: {one.name} after {terms[-1].name}, of which it would leave "
                f"nothing; expected it first. Fix: synthesis.guidance=[{one.name}], or leave it out"
            )
        terms.append(Term(one.name, guidance, knobs, rows))
    guide = Guide(tuple(terms), scale)
    names = [term.name for term in guide.fitted]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"synthesis.guidance: {twice[0]} more than once; expected each term that is fitted to "
            "real images once: an image has one aim. Fix: name it once"
        )
    return guide
