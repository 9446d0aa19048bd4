"""Tuning of references and mixtures: what is tried, what validation chose, further seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysynth.evaluation.final import Final
from raysynth.groups.metrics import GroupMetrics
from raysynth.references.reference import Setting, every_setting, merged
from raysynth.references.settings import ReferencesConfig
from raysynth.training.plan import Plan
from raysynth.training.units import Records


@dataclass(frozen=True)
class Tuning:
    """All that is tried, at the first seed: (reference, setting, plan); `seeds` of the chosen."""

    entries: tuple[tuple[str, Setting, Plan], ...]
    seeds: int

    @property
    def first(self) -> list[Plan]:
        """The trainings to begin with; those that several references need, once."""
        return merged(plan for _, _, plan in self.entries)

    def further(self, records: Records) -> list[Plan]:
        """The other seeds of every reference of which all settings have been tried."""
        return merged(self._seeds(records))

    def reached(self, records: Records) -> tuple[int, int]:
        """(done, total) settings and further seeds, each reference's by itself: a training that
        two share is counted for both, so that the total is known before validation has chosen."""
        trained = _trained(records)
        wanted = [*(plan for _, _, plan in self.entries), *self._seeds(records)]
        names = {name for name, _, _ in self.entries}
        done = sum(replace(plan, heads=()) in trained for plan in wanted)
        return done, len(self.entries) + len(names) * (self.seeds - 1)

    def _seeds(self, records: Records) -> list[Plan]:
        trained = _trained(records)
        missing = {name for name, _, p in self.entries if replace(p, heads=()) not in trained}
        ready = [entry for entry in self.entries if entry[0] not in missing]
        chosen, _ = choose(ready, records)
        seeds = range(1, self.seeds)
        return [replace(plan, seed=seed) for plan, _ in chosen.values() for seed in seeds]

    def finals(self, records: Records) -> tuple[list[Final], list[dict[str, Any]]]:
        """The final classifiers, all seeds of all references; and all that was tried."""
        chosen, tried = choose(self.entries, records)
        finals = [
            Final(name, record_of(replace(plan, seed=seed), records), head)
            for name, (plan, head) in chosen.items()
            for seed in range(self.seeds)
        ]
        return finals, tried


def _trained(records: Records) -> set[Plan]:
    """What was trained, whatever heads were put on it."""
    return {replace(plan, heads=()) for plan in records}


def tuning_of(names: Sequence[str], config: ReferencesConfig, seeds: int) -> Tuning:
    """Every reference at every setting."""
    return Tuning(every_setting(names, config), seeds)


def choose(
    entries: Sequence[tuple[str, Setting, Plan]], records: Records
) -> tuple[dict[str, tuple[Plan, str]], list[dict[str, Any]]]:
    """Per reference the plan and head of the best validation score; and all that was tried."""
    tried = []
    top: dict[str, tuple[float, Plan, str]] = {}
    for name, setting, plan in entries:
        record = record_of(plan, records)
        for spec in plan.heads:
            found = record["best"][spec.name]
            metrics = GroupMetrics.from_dict(found["validation"])
            tried.append(
                {
                    "reference": name,
                    "weight_decay": setting.weight_decay,
                    "learning_rate": setting.learning_rate,
                    "head": spec.name,
                    "step": found["step"],
                    "validation_wga": metrics.wga,
                    "validation_aga": metrics.aga,
                }
            )
            if name not in top or metrics.score > top[name][0]:
                top[name] = (metrics.score, plan, spec.name)
    return {name: (plan, head) for name, (_, plan, head) in top.items()}, tried


def record_of(plan: Plan, records: Records) -> dict[str, Any]:
    """The record of the unit that trained as planned, perhaps with further heads beside."""
    training = replace(plan, heads=())
    return next(
        record
        for done, record in records.items()
        if replace(done, heads=()) == training and set(plan.heads) <= set(done.heads)
    )
