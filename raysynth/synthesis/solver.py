"""The diffusion solver: diffusers' schedulers, built from the base model's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from raysynth.config import Config
from raysynth.errors import ConfigError
from raysynth.generators import recipe_of
from raysynth.models.sources import resolve

DETERMINISTIC = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
}
"""diffusers' classes."""
FLOW = "flow_prediction"


def check_solver(config: Config) -> None:
    """Refuse, before anything is loaded, a solver that does not fit the base or the generator.

    Raises
    ------
    ConfigError
        As `build_solver`, for a base in a folder (what a hub id predicts is known when it is
        loaded); or the generator edits, and the base's own solver cannot start midway.
    """
    name, source = config.synthesis.solver, resolve(config.base.name)
    if not os.path.isdir(source):
        return
    settings = json.loads((Path(source) / "scheduler" / "scheduler_config.json").read_text())
    _check_prediction(name, settings.get("prediction_type"))
    if name == "base" and recipe_of(config).edits:
        _check_midway(str(settings.get("_class_name")))


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


def _check_midway(kind: str) -> None:
    import diffusers

    solver = getattr(diffusers, kind, None)
    if not (hasattr(solver, "add_noise") or hasattr(solver, "scale_noise")):
        raise ConfigError(
            f"synthesis.solver=base: {kind} cannot add noise to an image, which generator=edit "
            "starts from; expected dpmsolver++ or unipc. Fix: synthesis.solver=dpmsolver++"
        )
