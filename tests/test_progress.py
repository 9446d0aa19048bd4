"""The display says what runs and never falls silent."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

import raysynth.progress
from raysynth.progress import Progress, Stopped


def test_lines_keep_coming_without_a_terminal(monkeypatch):
    monkeypatch.setattr(raysynth.progress, "HEARTBEAT_SECONDS", 0.5)
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=False)) as progress:
        progress.stage("synthesis")
        progress.update("images [32]", 120, 400)
        time.sleep(2.5)
        progress.say("done")
    text = out.getvalue()
    assert text.count("synthesis images [32] 120/400") >= 2
    assert text.rstrip().endswith("done")


def test_what_is_said_is_printed_as_it_is_written():
    """Names may look like rich's markup, an emoji's or a terminal's commands."""
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=True, width=200))
    name = "car [/x] [red]rear[/red] :car: \x1b[31m\r\n"
    for line in (f"  clusters: {name}", "plain"):
        progress.say(line)
    progress.say("ingest", mark="✓")
    progress.update(name, 1, 2)
    with progress.console.capture() as line:
        progress.console.print(progress._line())
    shown = r"car [/x] [red]rear[/red] :car: \x1b[31m\r\n"
    assert out.getvalue() == f"  clusters: {shown}\nplain\n\x1b[32m✓ \x1b[0mingest\n"
    assert f"{shown} 1/2" in line.get()


def test_a_stage_beside_another_stands_in_its_line_until_it_ends():
    progress = Progress(Console(file=io.StringIO(), force_terminal=False))
    progress.stage("synthesis")
    other = progress.beside()
    other.stage("references")
    other.update("trainings", 3, 16)
    assert progress._line().plain == "synthesis  (0 s); references trainings 3/16 (0 s)"
    other.end()
    assert progress._line().plain == "synthesis  (0 s)"
    with pytest.raises(Stopped):
        other.update("trainings", 4, 16)
