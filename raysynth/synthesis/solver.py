"""The diffusion solver: diffusers' schedulers, built from the base model's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from raysynth.config import Config
from raysynth.errors import ConfigError
from raysynth.models.sources import resolve

DETERMINISTIC = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
}
"""diffusers' classes."""
FLOW = "flow_prediction"


def check_solver(config: Config) -> None:
    """Refuse, before anything is loaded, a solver that does not fit the base model in a folder.

    Raises
    ------
    ConfigError
        As `build_solver`. (What a hub id predicts is known when it is loaded.)
    """
    source = resolve(config.base.name)
    if os.path.isdir(source):
        text = (Path(source) / "scheduler" / "scheduler_config.json").read_text()
        _check_prediction(config.synthesis.solver, json.loads(text).get("prediction_type"))


def build_solver(name: str, scheduler: Any) -> Any:
    """A fresh solver with the noise schedule and the prediction type of the base's scheduler.

    Parameters
    ----------
    name : `synthesis.solver`; `base` keeps the scheduler that the base model ships.
    scheduler : the base model's diffusers scheduler.

    Raises
    ------
    ConfigError
        If the solver cannot integrate what the base model predicts.
    """
    # On demand: `check_solver` must not wait seconds for diffusers.
    import diffusers

    if name == "base":
        return type(scheduler).from_config(scheduler.config)
    prediction = scheduler.config.get("prediction_type", "epsilon")
    _check_prediction(name, prediction)
    options: dict[str, Any] = {}
    if name == "dpmsolver++":
        options["algorithm_type"] = "dpmsolver++"
    if name != "ddim":
        options["use_flow_sigmas"] = prediction == FLOW
    return getattr(diffusers, DETERMINISTIC[name]).from_config(scheduler.config, **options)


def _check_prediction(name: str, prediction: str | None) -> None:
    if prediction == FLOW and name == "ddim":
        raise ConfigError(
            "synthesis.solver=ddim: the base model predicts a flow (prediction_type="
            "flow_prediction), which DDIM cannot integrate; expected dpmsolver++, unipc or base. "
            "Fix: synthesis.solver=dpmsolver++"
        )
