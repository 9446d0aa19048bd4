"""trackio: a local board of Hugging Face, or a Space, with numbers and previews.

Needs raysynth[trackio]. `trackio show --project raysynth` opens it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.knobs import Place, Section, knob
from raysynth.trackers.tracker import Kind, Tracker, numbers, parted


class Knobs(Section):
    """Where the board's data are."""

    folder: Place | None = knob(
        None,
        "Local folder of the data (trackio's TRACKIO_DIR, one for a whole process); None: the "
        "environment's, else with the run.",
    )
    project: str = knob("raysynth", "Trackio's project.")
    space: str | None = knob(None, "A Hugging Face Space instead, such as user/board.")


class Trackio:
    """One run of trackio, which has one at a time: parts are told apart by their numbers' names."""

    def __init__(self, folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> None:
        own = knobs.folder and os.path.expanduser(knobs.folder)
        os.environ.setdefault("TRACKIO_DIR", own or folder)  # read when it is imported
        import trackio

        self._image, self._finish = trackio.Image, trackio.finish
        with _apart():
            self._run = trackio.init(
                project=knobs.project,
                name=name,
                space_id=knobs.space,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def metrics(self, of: str, step: int, values: Mapping[str, float]) -> None:
        """Each as `<stage>/<part>/<name>`."""
        self._run.log({f"{of}/{name}": value for name, value in values.items()}, step=step)

    def pictures(self, of: str, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Each beside the numbers of its part."""
        found = {f"{of}/{name}": self._image(image) for name, image in images.items()}
        self._run.log(found, step=step)

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """Its numbers."""
        if found := numbers(facts):
            self.metrics(parted(stage)[0], 0, found)

    def close(self) -> None:
        """The run has ended."""
        with _apart():
            self._finish()  # the run's own leaves one for the process's end


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """What it prints is no result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _open(folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> Tracker:
    return Trackio(folder, name, config, knobs)


PART = Kind(
    title="Trackio", source="trackio (github.com/gradio-app/trackio)", open=_open, Knobs=Knobs
)
