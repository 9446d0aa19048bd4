"""The display says what runs: on a terminal, in a pipe, quietly, with all that a log has."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import termios
import time

import pytest
from rich.console import Console

import raysynth.progress
from raysynth.progress import QUIET, USUAL, VERBOSE, Progress, Stopped
from raysynth.view import line


def text_of(progress: Progress) -> str:
    return line(progress.seen()).plain


def test_a_pipe_hears_of_changes_now_and_then_and_of_nothing_else_hardly(monkeypatch):
    monkeypatch.setattr(raysynth.progress, "LINE_SECONDS", 0.5)
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=False)) as progress:
        progress.stages, progress.made = ("ingest", "synthesis"), ("ingest",)
        progress.stage("synthesis")
        for done in (120, 120, 160):
            progress.update("images [32]", done, 400)
            time.sleep(1.5)
        progress.say("done")
    told = out.getvalue().splitlines()
    assert [re.sub(r", about.*", "", each.partition(" %)")[0]) for each in told] == [
        "  [2/2] synthesis images [32] 120/400 (30",
        "  [2/2] synthesis images [32] 160/400 (40",
        "done",
    ]


def test_a_long_silence_is_broken(monkeypatch):
    for name in ("LINE_SECONDS", "SILENT_SECONDS"):
        monkeypatch.setattr(raysynth.progress, name, 0.5)
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=False)) as progress:
        progress.stage("references")
        time.sleep(3.5)
    assert out.getvalue().count("references") >= 2


def test_it_is_told_on_standard_error_and_a_quiet_one_tells_what_went_wrong(capsys):
    for loudness in (QUIET, USUAL, VERBOSE):
        with Progress(loudness=loudness) as progress:
            progress.say("a stage is done")
            progress.say("a worker was lost", level="warning")
            progress.note("0-1 is trained", adapter="0-1")
        said = capsys.readouterr()
        assert said.out == "" and "a worker was lost" in said.err
        assert ("a stage is done" in said.err) == (loudness >= USUAL)
        assert ("0-1 is trained  adapter=0-1" in said.err) == (loudness == VERBOSE)


SCREEN = """
import sys, time
from raysynth.progress import Progress

with Progress() as progress:
    progress.stages, progress.made = ("ingest", "finetune", "references"), ("ingest",)
    progress.stage("finetune")
    other = progress.beside()
    other.stage("references")
    other.update("settings and seeds", 3, 16)
    for step in (0, 200):
        progress.update("4 adapters, steps", step, 400)
        progress.detail("adapters", "1 done, 2 training, 1 failed; loss 0.0412, highest 0.1 (3-0)")
        time.sleep(1.2)
    progress.say("a line that stays")
    print("the result")
    time.sleep(1)
"""


def test_a_terminal_is_drawn_over_and_the_result_is_on_standard_output(tmp_path):
    """A real pseudo-terminal; its screen is what is left when all is drawn."""
    own, other = pty.openpty()
    termios.tcsetwinsize(other, (24, 110))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SCREEN], stdout=out, stderr=other, env=environment
        )
    os.close(other)
    said = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(own, 65536):
            said += part
    os.close(own)
    assert process.wait(30) == 0
    assert (tmp_path / "out").read_text() == "the result\n"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    for expected in (
        "1 of 3 stages",
        "✓ ingest",
        "▸ finetune",
        "4 adapters, steps 200/400 (50 %)",
        "1 done, 2 training, 1 failed; loss 0.0412",
        "settings and seeds 3/16 (19 %)",
        "━━━",
    ):
        assert expected in text
    assert text.count("a line that stays") == 1
    assert said.count(b"\x1b[?25l") == said.count(b"\x1b[?25h") == 1, "the cursor is back"


def test_what_is_said_is_printed_as_it_is_written():
    """Names may look like rich's markup, an emoji's or a terminal's commands."""
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=True, width=200))
    name = "car [/x] [red]rear[/red] :car: \x1b[31m\r\n"
    for told in (f"  clusters: {name}", "plain"):
        progress.say(told)
    progress.say("ingest", mark="✓")
    progress.stage("ingest")
    progress.update(name, 1, 2)
    shown = r"car [/x] [red]rear[/red] :car: \x1b[31m\r\n"
    assert out.getvalue() == f"  clusters: {shown}\nplain\n\x1b[32m✓ \x1b[0mingest\n"
    assert f"{shown} 1/2" in text_of(progress)


def test_a_stage_beside_another_stands_in_its_line_until_it_ends():
    progress = Progress(Console(file=io.StringIO(), force_terminal=False))
    progress.stage("synthesis")
    other = progress.beside()
    other.stage("references")
    other.update("trainings", 3, 16)
    assert text_of(progress) == "synthesis  (0.0 s); references trainings 3/16 (19 %) (0.0 s)"
    other.end()
    assert text_of(progress) == "synthesis  (0.0 s)"
    with pytest.raises(Stopped):
        other.update("trainings", 4, 16)
