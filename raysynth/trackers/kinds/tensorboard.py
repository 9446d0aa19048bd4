"""tensorboard: curves, pictures, hyperparameters, facts and configuration in event files.

A folder below the tracker's own for each adapter, trial, training and method, which TensorBoard
takes for runs: WGA, AGA and loss are one chart each with all of them in it. `raysynth dashboards
RUN` shows it; `tensorboard --logdir <storage_path>` all runs below it side by side.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.knobs import Place, Section, knob
from raysynth.trackers.tracker import Kind, Tracker, numbers, parted

OPEN = 16
"""Event files that are open at once, each with a thread: a run may have a thousand adapters."""
UNFIT = re.compile(r"[^\w ,.+=-]+")
"""What is in no folder's name."""


class Knobs(Section):
    """Where the event files are."""

    folder: Place | None = knob(
        None, "Local folder of the event files, one below it per run; None: with the run."
    )


class TensorBoard:
    """One run's event files."""

    def __init__(self, folder: str, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self._writers: OrderedDict[str, Any] = OrderedDict()
        self._text("config", config)

    def metrics(self, of: str, step: int, values: Mapping[str, float]) -> None:
        """Of a part each value under its own name, of a whole stage as `<stage>/<name>`."""
        stage, part = parted(of)
        writer = self._writer(of if part else "")
        for name, value in values.items():
            writer.add_scalar(name if part else f"{stage}/{name}", value, step)

    def pictures(self, of: str, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Each picture under its name."""
        for name, image in images.items():
            self._writer(of).add_image(name, image, step, dataformats="HWC")

    def tried(self, of: str, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """A row of the tab HParams, named as the part."""
        from tensorboardX.summary import hparams

        writer = self._writer(of)
        plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in settings.items()}
        for summary in hparams(plain, dict(values)):
            writer.file_writer.add_summary(summary)
        writer.flush()

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """All of it as a text, its numbers also as the scalars `<stage>/<key>`."""
        self.metrics(parted(stage)[0], 0, numbers(facts))
        self._text(stage, facts)
        for writer in self._writers.values():
            writer.flush()  # a run that is killed leaves what it has told

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, of: str) -> Any:
        """The files of a part; "": of the run as a whole."""
        from tensorboardX import SummaryWriter

        if of not in self._writers:
            while len(self._writers) >= OPEN:
                self._writers.popitem(last=False)[1].close()
            place = "/".join(UNFIT.sub("-", each) for each in of.split("/"))
            self._writers[of] = SummaryWriter(os.path.join(self._folder, place))
        self._writers.move_to_end(of)
        return self._writers[of]

    def _text(self, name: str, value: Mapping[str, Any]) -> None:
        lines = json.dumps(value, indent=1, default=str).splitlines()
        text = "\n".join(f"    {line}" for line in lines)  # Markdown's code
        self._writer("").add_text(name, text)


def _open(folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> Tracker:
    own = None if knobs.folder is None else os.path.join(os.path.expanduser(knobs.folder), name)
    return TensorBoard(own or folder, config)


PART = Kind(
    title="TensorBoard",
    source="tensorboardX (github.com/lanpa/tensorboardX)",
    open=_open,
    Knobs=Knobs,
)
