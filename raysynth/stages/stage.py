"""What a stage is: what it reads, what decides its outputs, what checks and builds it.

A stage is declared in the `declared.py` of its room, and named in the method
(`raysynth.method.METHOD`): these are the two places of a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.progress import Progress

Decides = Callable[[Any], Mapping[str, Any]]
"""Configuration -> all that outputs depend on besides the stages that are read; JSON-able."""


@dataclass(frozen=True)
class Stage:
    """One stage of the method; functions are named as `module:function`, imported when called."""

    name: str
    folder: str
    """Below the run's, and below `variants/<generator>` where several are tried."""
    build: str
    """(Work) -> facts for the manifest, such as `rows`."""
    reads: tuple[str, ...] = ()
    """Stages whose digests enter its own. `name`: of the same generator, if it is there once for
    each; `name/*`: of every generator; `*`: all before it."""
    decided_by: Decides = lambda config: {}
    check: str = ""
    """(config): refuses, before any listing or Ray, what cannot work."""
    check_groups: str = ""
    """(config, groups, [G] training images): the same, once the data set is listed. Of a stage that
    stands for another: [K, A + 1], of every class by attribute, last those of unknown attribute."""
    check_read: Mapping[str, str] = field(default_factory=dict)
    """Stage -> (config, its facts): refuses what this one cannot use, as soon as that is made."""
    cost: str = ""
    """(config, `planning.costs.Sized`) -> Cost: what `raysynth plan` adds up."""
    per_generator: bool = False
    """Once for each candidate of `generator: auto`."""
    ray: bool = True
    """Whether its build needs Ray."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Key -> stage that is read, but whose digest stands by itself under this key."""
    stands_for: str = ""
    """Stage that later ones read: they get this one in its place."""
    early: bool = False
    """Begins as soon as what it reads is there, beside stages before it, where cores would idle
    (`cluster.session.Session.spare`)."""
    where: Callable[[Any], bool] = lambda config: True
    """(config): whether a run has it."""


@dataclass(frozen=True)
class Cost:
    """What a stage costs, by what it is for; numbers of one name are added up over the stages."""

    flops: Mapping[str, float] = field(default_factory=dict)
    storage: Mapping[str, float] = field(default_factory=dict)
    """Bytes in the run's folder."""
    host: Mapping[str, float] = field(default_factory=dict)
    """Bytes of main memory, by who holds them."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _added(self.flops, other.flops),
            _added(self.storage, other.storage),
            _added(self.host, other.host),
        )


def _added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


@dataclass(frozen=True)
class Done:
    """A finished stage: its outputs' folder and what the manifest says of it."""

    name: str
    path: str
    digest: str
    seconds: float
    facts: dict[str, Any]
    skipped: bool
    sha256: Mapping[str, str] = field(default_factory=dict)
    """File below the folder -> SHA-256; records of before have none."""


@dataclass(frozen=True)
class Work:
    """What a build is given: its folder, what it reads, the sections of its configuration."""

    config: Sections
    folder: str
    """Kept over kills for the same digest: what is there already need not be made again."""
    inputs: Mapping[str, Done]
    """Stage -> all that was made before and that this one builds on, directly or not."""
    progress: Progress
    tracker: Any
    """Is told numbers of a stage at work: `metrics(stage, step, values)`."""
    run: Any = None
    """The run, for a stage that tells of it as a whole."""

    def path(self, stage: str) -> str:
        """Folder or URI of a finished stage."""
        return self.inputs[stage].path

    @cached_property
    def groups(self) -> Groups:
        """The data set's groups."""
        return Groups.from_dict(self.inputs["ingest"].facts["groups"])


def function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found
