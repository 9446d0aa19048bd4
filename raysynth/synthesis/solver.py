"""The diffusion solver: diffusers' schedulers, built from the base model's own."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from raysynth.config import Config
from raysynth.errors import ConfigError
from raysynth.generators import recipe_of
from raysynth.models.loading import load_base

DETERMINISTIC = {
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "ddim": DDIMScheduler,
}


def check_solver(config: Config) -> None:
    """Refuse, before anything is loaded, a solver that does not fit the base or the generator.

    Raises
    ------
    ConfigError
        As `build_solver`; or the generator edits, and the base's own solver cannot start midway.
    """
    scheduler = load_base(config.base, ("scheduler",)).scheduler
    solver = build_solver(config.synthesis.solver, scheduler)
    edits = recipe_of(config).edits
    if edits and not (hasattr(solver, "add_noise") or hasattr(solver, "scale_noise")):
        raise ConfigError(
            f"synthesis.solver={config.synthesis.solver}: {type(solver).__name__} cannot add noise "
            "to an image, which generator=edit starts from; expected dpmsolver++ or unipc. Fix: "
            "synthesis.solver=dpmsolver++"
        )


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
