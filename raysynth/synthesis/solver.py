"""The diffusion solver: diffusers' schedulers, built from the base model's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from raysynth.errors import ConfigError, ModelError
from raysynth.generators.recipe import recipe_of
from raysynth.knobs import Sections
from raysynth.models.headers import read_config
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import EMBEDDED, resolve
from raysynth.synthesis.settings import SynthesisConfig

DETERMINISTIC = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
}
"""diffusers' classes."""
FLOW = "flow_prediction"
PREDICTIONS = ("epsilon", "v_prediction", "sample", FLOW)
"""What a base may be trained to predict (`finetune.objective`)."""
TRIED, TOP = 10, 0.95
"""Steps at which a solver is tried for edits, and the share of the noise levels where it starts."""


def check_solver(config: Sections) -> None:
    """Refuse, before anything is loaded, a solver that does not fit the base or the generator.

    Raises
    ------
    ConfigError
        As `build_solver`, for a base in a folder (what a hub id predicts is known when it is
        loaded).
    ModelError
        The scheduler's file cannot be read, names a class that is no scheduler of diffusers, or a
        prediction that nothing here can integrate.
    """
    name, source = config[SynthesisConfig].solver, resolve(config[BaseConfigSection].name)
    if not os.path.isdir(source):
        return
    file = Path(source) / "scheduler" / "scheduler_config.json"
    settings = read_config("base.name: scheduler", file)
    _check_prediction(name, settings.get("prediction_type"))
    edits = name == "base" and recipe_of(config).edits
    if not edits and Path(source) == EMBEDDED:
        return
    _check_class(file, settings)
    from raysynth.models.loading import load_or_explain, load_scheduler

    def build() -> None:
        build_solver(name, load_scheduler(source, {}), edits=edits)

    load_or_explain("base.name: scheduler", source, build)


def _check_class(file: Path, settings: dict[str, Any]) -> None:
    """Refuse a scheduler that no diffusion model of this kind was trained with."""
    kind, prediction = settings.get("_class_name"), settings.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS or "FlowMatch" in str(kind):
        raise ModelError(
            f"base.name: {file} has _class_name={kind!r:.80} and prediction_type="
            f"{prediction!r:.80}; expected a scheduler of Stable Diffusion 1.x, and one of "
            f"{', '.join(PREDICTIONS)}. Fix: take the scheduler that the model was published with"
        )


def build_solver(name: str, scheduler: Any, edits: bool = False) -> Any:
    """A fresh solver with the noise schedule and the prediction type of the base's scheduler.

    Parameters
    ----------
    name : `synthesis.solver`; `base` keeps the scheduler that the base model ships.
    scheduler : the base model's diffusers scheduler.
    edits : real images are edited. `timestep_spacing=leading`, where strength 1 would leave up to
        a third of the real image, becomes `trailing`.

    Raises
    ------
    ConfigError
        If the solver cannot integrate what the base model predicts, or edits and cannot start
        midway.
    """
    # On demand: `check_solver` must not wait seconds for diffusers.
    import diffusers

    if name == "base":
        solver = type(scheduler).from_config(scheduler.config)
        if edits:
            _check_midway(solver)
        return solver
    prediction = scheduler.config.get("prediction_type", "epsilon")
    _check_prediction(name, prediction)
    options: dict[str, Any] = {}
    if name == "dpmsolver++":
        options["algorithm_type"] = "dpmsolver++"
    if name != "ddim":
        options["use_flow_sigmas"] = prediction == FLOW
    solver = getattr(diffusers, DETERMINISTIC[name]).from_config(scheduler.config, **options)
    if edits and solver.config.timestep_spacing == "leading":
        return type(solver).from_config(solver.config, timestep_spacing="trailing")
    return solver


def _check_prediction(name: str, prediction: str | None) -> None:
    if prediction == FLOW and name == "ddim":
        raise ConfigError(
            "synthesis.solver=ddim: the base model predicts a flow (prediction_type="
            "flow_prediction), which DDIM cannot integrate; expected dpmsolver++, unipc or base. "
            "Fix: synthesis.solver=dpmsolver++"
        )


def _check_midway(solver: Any) -> None:
    """Refuse what cannot begin at any noise level: second-order pairs, repeats, no last level."""
    kind, reason = type(solver).__name__, ""
    levels = solver.config.num_train_timesteps
    solver.set_timesteps(TRIED)
    count, first = len(solver.timesteps), float(solver.timesteps[0])
    if not (hasattr(solver, "add_noise") or hasattr(solver, "scale_noise")):
        reason = "cannot add noise to an image"
    elif count != TRIED:
        reason = f"takes {count} evaluations for {TRIED} steps, of which it cannot leave some out"
    elif first < TOP * levels:
        reason = f"starts at noise level {first:.0f} of {levels}, so strength 1 leaves real parts"
    if reason:
        raise ConfigError(
            f"synthesis.solver=base: the base's {kind} {reason}; generator=edit starts from real "
            "images with noise of any level; expected dpmsolver++, unipc or ddim. Fix: "
            "synthesis.solver=dpmsolver++"
        )
