"""The diffusion solver: diffusers' schedulers, built from the base model's own."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from raysynth.config import Config
from raysynth.errors import ConfigError
from raysynth.models.loading import load_base

DETERMINISTIC = {
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "ddim": DDIMScheduler,
}


def check_solver(config: Config) -> None:
    """Refuse, before anything is loaded, a solver that does not fit the base model.

    Raises
    ------
    ConfigError
        As `build_solver`.
    """
    build_solver(config.synthesis.solver, load_base(config.base, ("scheduler",)).scheduler)


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
    if name == "base":
        return type(scheduler).from_config(scheduler.config)
    prediction = scheduler.config.get("prediction_type", "epsilon")
    flow = prediction == "flow_prediction"
    if flow and name == "ddim":
        raise ConfigError(
            "synthesis.solver=ddim: the base model predicts a flow (prediction_type="
            "flow_prediction), which DDIM cannot integrate; expected dpmsolver++, unipc or base. "
            "Fix: synthesis.solver=dpmsolver++"
        )
    options: dict[str, Any] = {}
    if name == "dpmsolver++":
        options["algorithm_type"] = "dpmsolver++"
    if name != "ddim":
        options["use_flow_sigmas"] = flow
    return DETERMINISTIC[name].from_config(scheduler.config, **options)
