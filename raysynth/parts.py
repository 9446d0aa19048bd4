"""Every kind of part, and the tables of what there is: `raysynth parts`, docs/method.md.

The tables are made of the parts themselves: name, title, source and their own knobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from raysynth.config.documentation import knobs_in_words
from raysynth.errors import ConfigError
from raysynth.registry import Registry

BLOCK = re.compile(r"(<!-- parts: ([\w-]+) -->\n).*?(<!-- end of parts -->)", re.DOTALL)
"""What `written` fills in a document."""


@dataclass(frozen=True)
class Kind:
    """A kind of part: its registry as `module:NAME`, and the key that chooses one."""

    registry: str
    key: str

    def open(self) -> Registry[Any]:
        """The registry; no part is imported."""
        module, _, name = self.registry.partition(":")
        found: Registry[Any] = getattr(import_module(module), name)
        return found


KINDS: dict[str, Kind] = {
    "data-sets": Kind("raysynth.datasets.settings:LAYOUTS", "dataset.name"),
    "grouping": Kind("raysynth.grouping.settings:GROUPING", "grouping.method"),
    "families": Kind("raysynth.models.family:FAMILIES", "base.name"),
    "generators": Kind("raysynth.generators.generator:GENERATORS", "generator"),
    "objectives": Kind("raysynth.finetune.settings:OBJECTIVES", "finetune.objective"),
    "optimizers": Kind("raysynth.finetune.settings:OPTIMIZERS", "finetune.optimizer"),
    "terms": Kind("raysynth.finetune.settings:TERMS", "finetune.terms"),
    "guidance": Kind("raysynth.synthesis.guidance:GUIDANCE", "synthesis.guidance"),
    "schedules": Kind("raysynth.synthesis.schedule:SCHEDULES", "synthesis.schedule"),
    "scorers": Kind("raysynth.scoring.scorer:SCORERS", "synthesis.scorers"),
    "audits": Kind("raysynth.audit.settings:AUDITS", "audit.method"),
    "rules": Kind("raysynth.selection.settings:RULES", "selection.rule"),
    "scores": Kind("raysynth.selection.settings:SCORES", "selection.score"),
    "quotas": Kind("raysynth.selection.settings:QUOTAS", "selection.quota"),
    "references": Kind(
        "raysynth.references.settings:METHODS", "references.names, classifier.mixtures"
    ),
    "controls": Kind("raysynth.references.settings:CONTROLS", "references.controls"),
    "heads": Kind("raysynth.heads.spec:HEAD_OBJECTIVES", "classifier.head_objective"),
    "trackers": Kind("raysynth.trackers.tracker:TRACKERS", "trackers"),
}


def kind_of(name: str) -> Kind:
    """A kind by its name; ConfigError for one that there is not."""
    if name not in KINDS:
        raise ConfigError(f"parts: got {name!r}, expected one of {', '.join(KINDS)}. Fix: name one")
    return KINDS[name]


def rows(kind: Kind) -> Iterator[tuple[str, str, str, str, str]]:
    """(Name, title, what it is, source, its own knobs) of every part; their files are imported."""
    registry = kind.open()
    for name in registry.names:
        part: Any = registry[name]
        knobs = knobs_in_words(getattr(part, "Knobs", None))
        yield name, part.title, registry.about(name), part.source, knobs


def table(kind: Kind) -> str:
    """A Markdown table of the parts of a kind."""
    found = list(rows(kind))
    own = any(knobs for *_, knobs in found)
    heads = ("name", "title", "what it is", "source", "its own knobs")[: 5 if own else 4]
    lines = [heads, ("---",) * len(heads)]
    for name, *cells in found:
        cells = [cell.replace("|", "\\|") for cell in cells]
        lines.append((f"`{name}`", *cells)[: len(heads)])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def written(text: str) -> str:
    """A document whose blocks `<!-- parts: KIND -->` have the tables of today's parts."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(kind_of(found[2]))}{found[3]}", text)
