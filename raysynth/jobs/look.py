"""The status of a run on a terminal, once or again and again."""

from __future__ import annotations

import json
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from raysynth.jobs.heartbeat import FAILED, FINISHED, STOPPED
from raysynth.jobs.status import in_words, read_status
from raysynth.storage.files import open_storage

DISK_SECONDS, STORE_SECONDS = 2.0, 15.0
ENDED = (FINISHED, FAILED, STOPPED)


def look(root: str, *, as_json: bool) -> None:
    """Print the status of a run."""
    print(_text(root, as_json=as_json)[0])


def watch(root: str, *, as_json: bool) -> None:
    """Print the status of a run, and again whenever it has changed, until the run has ended.

    On a terminal the text is written over; elsewhere, and as JSON, each is one more.
    """
    pause = DISK_SECONDS if open_storage(root)[0].is_disk else STORE_SECONDS
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if as_json or not console.is_terminal:
        said = ""
        while True:
            text, state = _text(root, as_json=as_json)
            if text != said:
                print(said := text, flush=True)
            if state in ENDED:
                return
            time.sleep(pause)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            text, state = _text(root, as_json=False)
            live.update(Text(text), refresh=True)
            if state in ENDED:
                return
            time.sleep(pause)


def _text(root: str, *, as_json: bool) -> tuple[str, str]:
    status = read_status(root)
    told = json.dumps(status.to_dict()) if as_json else "\n".join(in_words(status))
    return told, status.state
