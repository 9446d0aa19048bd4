"""How far a run is, drawn: stages, bars and what is behind them on a terminal; a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysynth.pace import duration
from raysynth.terminal import shown

BAR = 28
"""Columns of a bar."""


class Standing(NamedTuple):
    """How far a stage is: `what` `done`/`total`, in its `seconds`-th second."""

    stage: str
    what: str
    done: float
    total: float
    seconds: float
    details: Mapping[str, str]
    """What stands below its bar: adapters, acceptance, trials."""
    rate: float | None
    """Of `done`, per second; None: not known."""

    @property
    def left(self) -> float | None:
        """Seconds to the end of what is counted, at this rate; None: not known."""
        if not (self.rate and self.total):
            return None
        return max(self.total - self.done, 0.0) / self.rate


@dataclass(frozen=True)
class Seen:
    """A run at a moment."""

    stages: Sequence[str]
    """Names of all its stages, in order; (): not known, or no run."""
    made: Collection[str]
    """Those that are there."""
    standing: Sequence[Standing]
    """The one in its turn, and those beside it."""
    seconds: float
    """Since the display began."""

    def number(self, stage: str) -> str:
        """`4/11`; "" for what is no stage of the run."""
        if stage not in self.stages:
            return ""
        return f"{list(self.stages).index(stage) + 1}/{len(self.stages)}"


def live(seen: Seen) -> RenderableType:
    """All of it, for a terminal that is written over."""
    rows: list[RenderableType] = []
    if seen.stages:
        rows.append(_track(seen))
    bars = Table.grid(padding=(0, 2, 0, 0))
    for at in seen.standing:
        bars.add_row(Text(at.stage, style="bold"), _bar(at), _counted(at))
        for name, text in at.details.items():
            bars.add_row("", Text(shown(name), style="dim"), Text(shown(text)))
    return Group(*rows, bars)


def line(seen: Seen, indent: str = "") -> Text:
    """The same in one line, for a pipe: `[4/11] finetune 3 adapters, steps 120/400 (12 s)`."""
    text = Text(indent)
    for number, at in enumerate(seen.standing):
        text.append("; " if number else "")
        if place := seen.number(at.stage):
            text.append(f"[{place}] ", "dim")
        text.append(at.stage, "bold").append(" ").append(_counted(at))
    return text


def _track(seen: Seen) -> Text:
    """Every stage with its mark, and how many of all are there."""
    at_work = {at.stage for at in seen.standing}
    there = sum(name in seen.made for name in seen.stages)
    text = Text(f"{there} of {len(seen.stages)} stages, {duration(seen.seconds)}  ", style="dim")
    for name in seen.stages:
        if name in seen.made:
            text.append("✓ ", "green").append(name, "dim")
        elif name in at_work:
            text.append("▸ ", "cyan").append(name, "bold")
        else:
            text.append(f"· {name}", "dim")
        text.append("  ")
    return text


def _bar(at: Standing) -> RenderableType:
    if not at.total:
        return ProgressBar(None, width=BAR, pulse=True, animation_time=time.monotonic())
    return ProgressBar(max(at.total, 1), min(at.done, at.total), width=BAR)


def _counted(at: Standing) -> Text:
    """`images generated 120/400 (30 %), about 4 min left (12 s)`."""
    text = Text(shown(at.what))
    if at.total:
        text.append(f" {at.done:,.0f}/{at.total:,.0f} ({100 * at.done / at.total:.0f} %)")
    if at.left and at.done < at.total:
        text.append(f", about {duration(at.left)} left")
    return text.append(f" ({duration(at.seconds)})", "dim")
