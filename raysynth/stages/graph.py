"""The graph that a configuration makes of the declared stages, and every node's digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from raysynth.errors import ConfigError
from raysynth.knobs import digest_of
from raysynth.stages.stage import Done, Stage

Contents = Callable[[Stage, Any], Mapping[str, Any]]
"""What decides a stage's outputs besides its configuration: files outside the run."""


def no_contents(stage: Stage, config: Any) -> Mapping[str, Any]:
    """Nothing: the files do not matter."""
    return {}


@dataclass(frozen=True)
class Node:
    """A stage with one configuration, and the nodes that it reads."""

    stage: Stage
    config: Any
    reads: Mapping[str, Node] = field(repr=False)
    """Name as the stage says it -> node."""
    decided_by: Mapping[str, Any] = field(repr=False)
    variant: str = ""
    """The generator, of a stage that is there once for each."""

    @property
    def name(self) -> str:
        """`stage`, or `stage/variant`; distinct in a run."""
        return f"{self.stage.name}/{self.variant}" if self.variant else self.stage.name

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Everything that the outputs depend on, JSON-able. A variant's name says nothing."""
        apart = set(self.stage.beside.values())
        after = {name: node.digest for name, node in self.reads.items() if name not in apart}
        beside = {key: self.reads[name].digest for key, name in self.stage.beside.items()}
        return ({"after": after} if after else {}) | beside | dict(self.decided_by)

    @cached_property
    def digest(self) -> str:
        """What the outputs are a function of."""
        return stage_digest(self.stage.name, self.inputs)

    @cached_property
    def upstream(self) -> dict[str, Node]:
        """All nodes that this one builds on, directly or not.

        By stage's name; where every generator's are read, theirs by `stage/variant`.
        """
        found: dict[str, Node] = {}
        for name, node in self.reads.items():
            if name.startswith("/"):
                found |= {each.name: each for each in (*node.upstream.values(), node)}
            else:
                found |= node.upstream | {name: node}
        return found

    def of(self, done: Mapping[str, Done]) -> dict[str, Done]:
        """What was made of the nodes that this one builds on."""
        return {name: done[node.name] for name, node in self.upstream.items()}


def graph(
    stages: Sequence[Stage],
    config: Any,
    variants: Mapping[str, Any],
    contents: Contents,
) -> list[Node]:
    """The nodes of a configuration, in order; of stages per generator one for each variant.

    Parameters
    ----------
    variants : generator -> its configuration; {"": config} where there is one.
    """
    found: dict[str, Node] = {}
    names: dict[str, str] = {}  # what is read -> the node that stands for it
    for stage in stages:
        if not stage.where(config):
            continue
        for variant, own in variants.items() if stage.per_generator else [("", config)]:
            reads = _reads(stage, variant, found, names, list(variants))
            decided_by = {**stage.decided_by(own), **contents(stage, own)}
            node = Node(stage, own, reads, decided_by, variant)
            found[node.name] = node
            names[node.name] = node.name
            if stage.stands_for:
                names[stage.stands_for] = node.name
    return list(found.values())


def _reads(
    stage: Stage,
    variant: str,
    found: Mapping[str, Node],
    names: Mapping[str, str],
    variants: Sequence[str],
) -> dict[str, Node]:
    reads: dict[str, Node] = {}
    for name in stage.reads:
        if name == "*":
            reads |= {node.stage.name: node for node in found.values()}
        elif name.endswith("/*"):
            reads |= {f"/{each}": found[f"{name[:-2]}/{each}"] for each in variants}
        else:
            own = f"{name}/{variant}"
            reads[name] = found[names[own] if own in names else names[name]]
    return reads


def up_to(nodes: Sequence[Node], last: str | None) -> list[Node]:
    """The nodes up to the last one of a stage; all for None. ConfigError: there is none."""
    if last is None:
        return list(nodes)
    ends = [i for i, node in enumerate(nodes) if node.stage.name == last]
    if not ends:
        raise ConfigError(
            f"until: got {last!r}, which this configuration has not; expected one of "
            f"{', '.join(dict.fromkeys(node.stage.name for node in nodes))}. Fix: until=one of "
            "these (grouping: where grouping.method is not given; audit: where it has a method)"
        )
    return list(nodes[: ends[-1] + 1])


def stage_digest(name: str, inputs: Mapping[str, Any]) -> str:
    """What a stage's outputs are a function of; `name` may have a variant."""
    return digest_of({"stage": stage_kind(name), "inputs": inputs})


def stage_kind(name: str) -> str:
    """A stage's name without its variant."""
    return name.partition("/")[0]
