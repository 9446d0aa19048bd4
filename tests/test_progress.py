"""The display says what runs and never falls silent."""

from __future__ import annotations

import io
import time

from rich.console import Console

import raysynth.progress
from raysynth.progress import Progress


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
