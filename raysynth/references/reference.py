"""What a reference is: which phases train its network, and which heads are tried on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from raysynth.heads.spec import TRAINED, HeadSpec
from raysynth.references.settings import ReferencesConfig
from raysynth.training.plan import Phase, Plan


@dataclass(frozen=True)
class Setting:
    """What is tuned of every reference alike."""

    weight_decay: float
    learning_rate: float


@dataclass(frozen=True)
class Reference:
    """A method that raysynth is compared with.

    `kind`: `reference` sees real images only, `mixture` also the run's synthetic ones.
    `uses_validation`: it trains on validation images; all others are only chosen by them.
    """

    name: str
    source: str
    phases: Callable[[ReferencesConfig, Setting], tuple[Phase, ...]]
    heads: Callable[[ReferencesConfig], tuple[HeadSpec, ...]] = lambda config: (TRAINED,)
    kind: Literal["reference", "mixture"] = "reference"
    uses_validation: bool = False

    def plan(self, config: ReferencesConfig, setting: Setting, seed: int) -> Plan:
        """The training of one setting and seed."""
        phases = self.phases(config, setting)
        return Plan(phases, self.heads(config), config.evaluations, seed)

    def budget(self, config: ReferencesConfig) -> dict[str, Any]:
        """What validation chose among: the same trainings and stopping points for all."""
        trainings = len(settings(config))
        return {
            "trainings": trainings,
            "stopping_points": trainings * config.evaluations,
            "heads_each": len(self.heads(config)),
        }


def settings(config: ReferencesConfig) -> list[Setting]:
    """All that is tried of every reference."""
    return [Setting(*both) for both in product(config.weight_decays, config.learning_rates)]


def on_real(config: ReferencesConfig, setting: Setting, **more: Any) -> Phase:
    """A phase on the real training images."""
    known: dict[str, Any] = {"images": "real", "steps": config.steps} | more
    return Phase(learning_rate=setting.learning_rate, weight_decay=setting.weight_decay, **known)


def plain(config: ReferencesConfig, setting: Setting) -> tuple[Phase, ...]:
    """ERM's only phase, which methods that refit its last layer share."""
    return (on_real(config, setting),)


def merged(plans: Iterable[Plan]) -> list[Plan]:
    """The plans with equal trainings made one, with the heads of all."""
    heads: dict[Plan, dict[HeadSpec, None]] = {}
    for plan in plans:
        heads.setdefault(replace(plan, heads=()), {}).update(dict.fromkeys(plan.heads))
    return [replace(plan, heads=tuple(found)) for plan, found in heads.items()]
