"""What a reference is: how its encoder is trained, and which heads are tried on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from raysynth.classify.training import HeadSpec, Plan
from raysynth.config import ClassifierConfig


@dataclass(frozen=True)
class Reference:
    """A method that sees real images only.

    References of the same `sampling` and `step_size` share their encoder trainings, so that a
    further head costs nothing more than its fit.
    """

    name: str
    source: str
    sampling: Literal["uniform", "balanced"]
    step_size: Callable[[ClassifierConfig], float]
    heads: Callable[[ClassifierConfig], tuple[HeadSpec, ...]]

    def plan(self, classifier: ClassifierConfig, weight_decay: float, seed: int) -> Plan:
        """The training of one setting and seed."""
        return Plan(
            ratio=0.0,
            steps=classifier.reference_steps,
            learning_rate=classifier.learning_rate,
            weight_decay=weight_decay,
            heads=self.heads(classifier),
            sampling=self.sampling,
            dro_step_size=self.step_size(classifier),
            evaluations=classifier.reference_evaluations,
            seed=seed,
        )


TRAINED = HeadSpec("trained")


def trained_head(_: ClassifierConfig) -> tuple[HeadSpec, ...]:
    """The head that was trained along with the encoder."""
    return (TRAINED,)


def no_step_size(_: ClassifierConfig) -> float:
    """No group-DRO."""
    return 0.0


def merged(plans: list[Plan]) -> list[Plan]:
    """The plans with equal trainings made one, with the heads of all."""
    heads: dict[Plan, dict[HeadSpec, None]] = {}
    for plan in plans:
        heads.setdefault(replace(plan, heads=()), {}).update(dict.fromkeys(plan.heads))
    return [replace(plan, heads=tuple(found)) for plan, found in heads.items()]
