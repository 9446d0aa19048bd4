"""wandb: a run of Weights & Biases, online or in files, with pictures, a table and artefacts.

Needs raysynth[wandb]. Without WANDB_API_KEY it works offline; `wandb sync` sends it later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raysynth.knobs import Section, knob
from raysynth.trackers.tracker import Kind, Tracker, numbers, parted


class Knobs(Section):
    """Which project, and whether it is sent."""

    project: str = knob("raysynth", "Weights & Biases' project.")
    entity: str | None = knob(None, "Team or user; None: the one that is logged in.")
    mode: Literal["auto", "online", "offline"] = knob(
        "auto", "offline: files with the run; auto: offline without WANDB_API_KEY."
    )


class WandB:
    """One run in Weights & Biases."""

    def __init__(self, folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> None:
        import wandb

        os.makedirs(folder, exist_ok=True)
        mode = knobs.mode
        if mode == "auto":
            mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        self._wandb = wandb
        self._run = wandb.init(
            project=knobs.project,
            entity=knobs.entity,
            name=name,
            id=hashlib.sha256(folder.encode()).hexdigest()[:12],  # an attempt goes on with it
            resume="allow" if mode == "online" else None,
            dir=folder,
            config=dict(config),
            mode=os.environ.get("WANDB_MODE") or mode,  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._defined: set[str] = set()
        self._tried: list[dict[str, Any]] = []

    def metrics(self, of: str, step: int, values: Mapping[str, float]) -> None:
        """Each as `<stage>/<part>/<name>`, over a step of its own."""
        self._log(of, step, dict(values))

    def pictures(self, of: str, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Each beside the numbers of its part."""
        self._log(of, step, {name: self._wandb.Image(image) for name, image in images.items()})

    def tried(self, of: str, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """A row of the table `trials`, for parallel coordinates."""
        self._tried.append({"of": of, **settings, **values})

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """Its numbers in the run's summary."""
        self._run.summary.update({f"{stage}/{k}": value for k, value in numbers(facts).items()})

    def artefact(self, name: str, path: str) -> None:
        """A file of the run, as an artefact."""
        kept = self._wandb.Artifact(f"{self._run.id}-{name.replace('.', '-')}", type="result")
        kept.add_file(path)
        self._run.log_artifact(kept)

    def close(self) -> None:
        """The table, and the end."""
        if self._tried:
            keys = dict.fromkeys(key for row in self._tried for key in row)
            table = self._wandb.Table(columns=[*keys])
            for row in self._tried:
                table.add_data(*map(row.get, keys))
            self._run.log({"trials": table})
        self._run.finish()

    def _log(self, of: str, step: int, values: dict[str, Any]) -> None:
        stage, part = parted(of)
        above = f"{stage}/{part}" if part else stage
        if above not in self._defined:
            self._defined.add(above)
            self._run.define_metric(f"{above}/step", hidden=True)
            self._run.define_metric(f"{above}/*", step_metric=f"{above}/step")
        self._run.log({f"{above}/{k}": v for k, v in values.items()} | {f"{above}/step": step})


def _open(folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> Tracker:
    return WandB(folder, name, config, knobs)


PART = Kind(
    title="Weights & Biases",
    source="wandb (github.com/wandb/wandb)",
    open=_open,
    Knobs=Knobs,
)
