"""Whose turn it is to train in a folder: workers that outlive their driver end by it.

A Ray that goes on without the driver, as below a notebook, would train on beside the next run: a
worker ends where it would report, once the folder names another run's turn or none.
"""

from __future__ import annotations

import json

from raysynth.storage.files import read_now, remove, write_atomic

FOLDER = ".train"
"""Below the folder: the turn, and what workers say."""


class TurnOver(Exception):
    """The driver left, or another one trains the same now."""


def turn_path(folder: str) -> str:
    """The file that names the run which trains in a folder or URI."""
    return f"{folder}/{FOLDER}/turn.json"


def take_turn(folder: str, turn: str) -> None:
    """Train in a folder from now on; what workers said before goes."""
    remove(f"{folder}/{FOLDER}")
    write_atomic(turn_path(folder), json.dumps(turn).encode())


def check_turn(folder: str, turn: str) -> None:
    """Raises TurnOver where the folder names another turn, or none; StorageError."""
    if read_now(turn_path(folder)) != turn:
        raise TurnOver
