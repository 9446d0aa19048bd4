"""tensorboard: scalars of every stage, its facts and the configuration as texts, in event files.

`tensorboard --logdir <storage_path>` shows all runs below it side by side.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from raysynth.knobs import Place, Section, knob
from raysynth.trackers.tracker import Kind, Tracker


class Knobs(Section):
    """Where the event files are."""

    folder: Place | None = knob(
        None, "Local folder of the event files, one below it per run; None: with the run."
    )


class TensorBoard:
    """One run's event files."""

    def __init__(self, folder: str, config: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(folder)
        self._text("config", config)

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Each value as the scalar `<stage>/<name>`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """All of it as a text, each number also as the scalar `<stage>/<key>/<key>`."""
        self.metrics(stage, 0, dict(numbers(facts)))
        self._text(stage, facts)
        self._writer.flush()  # a run that is killed leaves what it has told

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _text(self, name: str, value: Mapping[str, Any]) -> None:
        lines = json.dumps(value, indent=1, default=str).splitlines()
        self._writer.add_text(name, "\n".join(f"    {line}" for line in lines))  # Markdown's code


def numbers(facts: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """(`key/key`, value) of all numbers in nested mappings; lists are no curves and left out."""
    if isinstance(facts, Mapping):
        for key, value in facts.items():
            yield from numbers(value, f"{name}/{key}" if name else str(key))
    elif isinstance(facts, int | float) and not isinstance(facts, bool):
        yield name, float(facts)


def _open(folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> Tracker:
    own = None if knobs.folder is None else os.path.join(os.path.expanduser(knobs.folder), name)
    return TensorBoard(own or folder, config)


PART = Kind(
    title="TensorBoard",
    source="tensorboardX (github.com/lanpa/tensorboardX)",
    open=_open,
    Knobs=Knobs,
)
