"""What a reference is: which phases train its network, and which heads are tried on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from raysynth.heads.spec import TRAINED, HeadSpec
from raysynth.references.settings import METHODS, ReferencesConfig
from raysynth.registry import Registry
from raysynth.training.plan import Phase, Plan


@dataclass(frozen=True)
class Setting:
    """What is tuned of every reference alike."""

    weight_decay: float
    learning_rate: float


@dataclass(frozen=True)
class Reference:
    """A method that raysynth is compared with; the `PART` of a file in `methods/`.

    `title`: what tables call it; `source`: who published it. `kind`: `reference` sees real images
    only, `mixture` also the run's synthetic ones. `uses_validation`: it trains on validation
    images; all others are only chosen by them.
    """

    title: str
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


REFERENCES: Registry[Reference] = METHODS


def settings(config: ReferencesConfig) -> list[Setting]:
    """All that is tried of every reference; `config`: settled."""
    assert config.learning_rates is not None
    return [Setting(*both) for both in product(config.weight_decays, config.learning_rates)]


def every_setting(
    names: Sequence[str], config: ReferencesConfig
) -> tuple[tuple[str, Setting, Plan], ...]:
    """(name, setting, training at the first seed) of all that is tried of these references."""
    return tuple(
        (name, setting, REFERENCES[name].plan(config, setting, seed=0))
        for name in names
        for setting in settings(config)
    )


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
