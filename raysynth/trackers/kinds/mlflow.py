"""mlflow: a run of MLflow with its adapters, trials and trainings as nested runs, and artefacts.

Needs raysynth[mlflow]. A run that goes on goes on with the same run of MLflow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.knobs import Section, knob
from raysynth.trackers.tracker import Kind, Tracker, numbers, parted

UNFIT = re.compile(r"[^\w ./-]+")
"""What MLflow takes in no key."""
LONGEST = 500
"""Characters of a parameter."""
AT_ONCE = 100
"""Parameters that MLflow takes in one call."""


class Knobs(Section):
    """Which server or store, and which experiment."""

    uri: str | None = knob(
        None,
        "Tracking URI, such as http://host:5000 or sqlite:////data/mlflow.db; None: the "
        "environment's MLFLOW_TRACKING_URI, else a store with the run.",
    )
    experiment: str = knob("raysynth", "MLflow's experiment, made where there is none.")


class MLflow:
    """One run in MLflow."""

    def __init__(self, folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> None:
        from mlflow.tracking import MlflowClient

        uri, artefacts = knobs.uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            os.makedirs(folder, exist_ok=True)
            uri, artefacts = f"sqlite:///{folder}/mlflow.db", f"file://{folder}/artifacts"
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(knobs.experiment)
        self._experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(knobs.experiment, artifact_location=artefacts)
        )
        self._run = self._begun(name, {"raysynth.folder": folder})
        self._parts: dict[str, str] = {}
        self._settings(self._run, _flat(config))

    def metrics(self, of: str, step: int, values: Mapping[str, float]) -> None:
        """Of a part in its nested run, of a whole stage as `<stage>/<name>`."""
        stage, part = parted(of)
        for name, value in values.items():
            key = name if part else f"{stage}/{name}"
            self._client.log_metric(self._of(of), _fit(key), value, step=step)

    def pictures(self, of: str, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Each as a PNG among the artefacts of its run."""
        for name, image in images.items():
            self._client.log_image(self._of(of), image, f"{_fit(name)}-{step:06d}.png")

    def tried(self, of: str, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """Parameters and last metrics of a nested run, which ends."""
        run = self._of(of)
        self._settings(run, settings)
        for name, value in values.items():
            self._client.log_metric(run, f"final {_fit(name)}", value)
        self._client.set_terminated(run)

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """Its numbers as metrics, all of it as a file."""
        self.metrics(parted(stage)[0], 0, numbers(facts))
        self._client.log_dict(self._run, dict(facts), f"stages/{_fit(stage)}.json")

    def artefact(self, name: str, path: str) -> None:
        """A file of the run, as it is."""
        self._client.log_artifact(self._run, path)

    def close(self) -> None:
        """The run and its parts have ended."""
        for run in (*self._parts.values(), self._run):
            self._client.set_terminated(run)

    def _begun(self, name: str, tags: Mapping[str, str]) -> str:
        """The id of a run with these tags, an earlier attempt's if there is one."""
        asked = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        asked += f" and attributes.run_name = '{name}'"
        found = self._client.search_runs([self._experiment], asked, max_results=1)
        if found:
            run = str(found[0].info.run_id)
            self._client.update_run(run, status="RUNNING")
            return run
        made = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        return str(made.info.run_id)

    def _of(self, of: str) -> str:
        """The id of a part's run; of a whole stage the run's own."""
        if not parted(of)[1]:
            return self._run
        if of not in self._parts:
            self._parts[of] = self._begun(_fit(of), {"mlflow.parentRunId": self._run})
        return self._parts[of]

    def _settings(self, run: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(run).data.params  # another attempt's: they cannot be changed
        found = [
            Param(_fit(key), str(value)[:LONGEST])
            for key, value in values.items()
            if _fit(key) not in known
        ]
        for start in range(0, len(found), AT_ONCE):
            self._client.log_batch(run, params=found[start : start + AT_ONCE])


def _fit(key: str) -> str:
    return UNFIT.sub("-", key)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`section.key` -> value of nested settings."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{above}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _open(folder: str, name: str, config: Mapping[str, Any], knobs: Knobs) -> Tracker:
    return MLflow(folder, name, config, knobs)


PART = Kind(title="MLflow", source="mlflow (github.com/mlflow/mlflow)", open=_open, Knobs=Knobs)
