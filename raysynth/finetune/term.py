"""Terms: what is added to an objective's loss, of every row of a batch by itself.

A term is a file of `raysynth/finetune/terms` (`settings.TERMS`). It compares what the model says of
a noisy image under its own prompt (`Noised.predicted`) with what it says under others. A term uses
the row's own adapter alone, so an adapter comes out the same in any pack; it steers the training,
and early stopping measures the objective without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raysynth.errors import ConfigError
from raysynth.finetune.settings import TERMS
from raysynth.knobs import Section
from raysynth.registry import Chosen

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.jobs import Job
    from raysynth.finetune.material import Material
    from raysynth.finetune.objective import Noised
    from raysynth.groups.groups import Groups
    from raysynth.models.condition import Condition
    from raysynth.models.family import Base
    from raysynth.models.prediction import Predicted


@dataclass(frozen=True)
class Passes:
    """How often the network sees a row for a term, besides for the objective."""

    trained: int = 0
    """With what a backward pass needs; memory is counted by it."""
    looked: int = 0
    """Forwards alone."""
    first: int = 0
    """Forwards of images before a model's first step, in all."""


@dataclass(frozen=True)
class Beginning:
    """A job where its training begins."""

    job: Job
    groups: Groups
    seed: int
    """The run's."""
    base: Base
    """With its encoders, not its network."""
    denoise: Callable[[Tensor, Tensor, Condition], Predicted]
    """The model before its first step, which is the base; to be called without gradients."""


class Term(Protocol):
    """One term of the loss."""

    title: str
    source: str
    Knobs: type[Section]
    against: tuple[str, ...]
    """Terms that pull the other way."""

    def passes(self, knobs: Any) -> Passes:
        """How often the network is called; memory and costs are counted by it."""

    def partners(self, group: int, spoken: Sequence[int], groups: Groups, knobs: Any) -> list[int]:
        """Groups that an image of `group` is compared with, of those in `spoken`.

        A model that none of its groups has any in cannot be trained with the term.
        """

    def extra(self, material: Material, start: Beginning, knobs: Any) -> Material:
        """The material with all else that the term reads of its rows, see `Objective.extra`.

        And with other prompts of draws, where the term wants images shown under these.
        """

    def __call__(self, batch: Noised, knobs: Any) -> Tensor:
        """[B] what is added to the losses; zero where `batch.differs` says so, by `torch.where`."""


class HasTerms(Protocol):
    """Settings with a knob `terms`."""

    @property
    def terms(self) -> tuple[Chosen, ...]:
        """What is added to the loss."""


@dataclass(frozen=True)
class Added:
    """A term of a run."""

    name: str
    term: Term
    knobs: Any

    @property
    def passes(self) -> Passes:
        """See `Term.passes`."""
        return self.term.passes(self.knobs)

    def extra(self, material: Material, start: Beginning) -> Material:
        """See `Term.extra`."""
        return self.term.extra(material, start, self.knobs)

    def __call__(self, batch: Noised) -> Tensor:
        """See `Term.__call__`."""
        return self.term(batch, self.knobs)


def terms_of(settings: HasTerms) -> tuple[Added, ...]:
    """The terms that settings name, in order."""
    return tuple(Added(one.name, TERMS[one.name], one.knobs(TERMS)) for one in settings.terms)


def check_mixture(key: str, names: Sequence[str]) -> None:
    """Refuse a term that is named twice, and two that pull against each other; ConfigError."""
    said = f"{key}=[{', '.join(names)}]"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"{said}: {twice[0]} more than once; expected each once. Fix: name it once, with the "
            "sum of its weights"
        )
    for name in names:
        if other := next((other for other in names if other in TERMS[name].against), None):
            raise ConfigError(
                f"{said}: {name} and {other} pull the same predictions apart and together; "
                "expected one of them. Fix: leave one out"
            )
