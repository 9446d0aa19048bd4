"""A check of `raysynth doctor`: what is looked at on every node, and what is found in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysynth.config.config import Config
from raysynth.errors import RaysynthError, StorageError
from raysynth.planning.planned import Plan
from raysynth.registry import Registry
from raysynth.storage.faults import may_pass
from raysynth.terminal import clipped

OK, WARN, FAIL = "ok", "warn", "fail"
HERE, DRIVER = "this machine", "the driver"
"""Where a run without a cluster is, and the process that would drive one on a cluster: its
environment is its shell's, a node's is that of its `ray start`."""
NAMED = 3
"""Places that are named in a line; the others are counted."""
LONGEST = 600
"""Characters of another one's message."""


@dataclass(frozen=True)
class Finding:
    """One line: how it stands, what was found, and what to do about it."""

    mark: str
    text: str
    fix: str = ""
    """Of what is not OK."""
    passing: bool = False
    """A failure that may be over in a moment: the same command is worth another try."""


@dataclass(frozen=True)
class Failed:
    """What an error said of a look at a place; travels from a node without its class."""

    text: str
    fix: str
    passing: bool

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """An error in one line; raysynth's own say themselves what to do."""
        own = isinstance(error, RaysynthError)
        message = " ".join((str(error) if own else f"{type(error).__name__}: {error}").split())
        text, _, fix = message.partition(" Fix: ")
        unknown = "see to what it names"
        return cls(clipped(text.rstrip(".;"), LONGEST), fix or unknown, passes(error))


@dataclass(frozen=True)
class Node:
    """A node of a cluster: what it is called here, Ray's id, and what Ray schedules on it."""

    name: str
    id: str
    resources: Mapping[str, float]


@dataclass(frozen=True)
class Scene:
    """All that was seen, for the checks to judge."""

    config: Config
    visit: str
    """A name that no other examination has."""
    local: bool
    """A run would have a Ray of its own on this machine."""
    plan: Plan | Failed
    joined: Failed | None = None
    """Why the cluster was not joined."""
    nodes: Sequence[Node] = ()
    driver_node: str = ""
    """Name of the node that the driver is on."""
    seen: Mapping[str, Mapping[str, Any]] | None = None
    """Place -> check -> facts, or Failed."""
    silent: Mapping[str, Failed] | None = None
    """Nodes that answered nothing."""

    def of(self, check: str) -> dict[str, Any]:
        """Place -> facts of a check, where the look did not fail."""
        found = {place: facts.get(check) for place, facts in (self.seen or {}).items()}
        return {
            place: facts
            for place, facts in found.items()
            if facts is not None and not isinstance(facts, Failed)
        }

    def failed(self, check: str) -> dict[str, Failed]:
        """Place -> why the look of a check failed there."""
        found = {place: facts.get(check) for place, facts in (self.seen or {}).items()}
        return {place: facts for place, facts in found.items() if isinstance(facts, Failed)}


Look = Callable[[Config, str], Any]
"""(configuration, visit) -> facts, on a node: what can be pickled, None for nothing to see.

Runs what a run itself would, and lets its errors through: each is a finding."""


@dataclass(frozen=True)
class Check:
    """One family of checks."""

    order: int
    """Place in the list."""
    judge: Callable[[Scene], Iterator[Finding]]
    look: Look | None = None


CHECKS: Registry[Check] = Registry("raysynth.doctor.checks", "doctor")


def passes(error: BaseException) -> bool:
    """Whether an error may be over in a moment; a storage that refuses goes on refusing."""
    if isinstance(error, StorageError):
        return may_pass(error)
    return isinstance(error, RaysynthError) and error.exit_code == 3


def places(names: Sequence[str]) -> str:
    """Some places by name, many by name and number."""
    named = [*names] if len(names) <= NAMED else [*names[:NAMED], f"{len(names) - NAMED:,} more"]
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))


def together(found: Mapping[str, Failed]) -> Iterator[Finding]:
    """A failure each of what several places say alike."""
    alike: dict[Failed, list[str]] = {}
    for place, failed in found.items():
        alike.setdefault(failed, []).append(place)
    for failed, names in alike.items():
        text = failed.text if names == [HERE] else f"{places(names)}: {failed.text}"
        yield Finding(FAIL, text, failed.fix, failed.passing)


def on(scene: Scene, number: int) -> str:
    """How many places, the driver among them, a good finding holds for."""
    if DRIVER not in (scene.seen or {}):
        return "here"
    nodes = number - 1
    return f"in the driver and on {nodes:,} node{'s' * (nodes != 1)}"
