"""The diffusion solver: diffusers' schedulers, built from the base model's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysynth.errors import ConfigError, ModelError
from raysynth.generators.recipe import ANYWHERE, Recipe, recipe_of
from raysynth.knobs import Sections
from raysynth.models.headers import read_config
from raysynth.models.scheduler import (
    FLOW_MATCHING,
    kind_of_prediction,
    settled,
    shift_of,
)
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import EMBEDDED, resolve
from raysynth.synthesis.noise import Noise
from raysynth.synthesis.schedule import EVEN, FLOW, PREDICTIONS, SCHEDULES
from raysynth.synthesis.settings import SynthesisConfig

if TYPE_CHECKING:
    from raysynth.models.family import Family

DETERMINISTIC = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
}
"""diffusers' classes."""
LAID_OUT = tuple(DETERMINISTIC[name] for name in ANYWHERE)
"""Those that take any levels."""
REPEATABLE = (
    *DETERMINISTIC.values(),
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
)
"""diffusers' classes that add no noise of their own: their images are functions of the first."""
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
    synthesis, source = config[SynthesisConfig], resolve(config[BaseConfigSection].name)
    name, recipe = synthesis.solver, recipe_of(config)
    _check_edits(synthesis.schedule.name, recipe)
    _check_start(synthesis)
    if not os.path.isdir(source):
        check_schedule(synthesis.schedule.name, name, DETERMINISTIC.get(name), None)
        return
    file = Path(source) / "scheduler" / "scheduler_config.json"
    settings = read_config("base.name: scheduler", file)
    prediction = kind_of_prediction(settings.get("_class_name"), settings)
    ours = Path(source) == EMBEDDED
    _check_prediction(name, prediction)
    if not ours:
        _check_class(file, settings, prediction)
    kind = DETERMINISTIC.get(name, kind_of(settings.get("_class_name"), settings))
    check_schedule(synthesis.schedule.name, name, kind, prediction)
    edits = name == "base" and recipe.edits
    if ours and not edits:
        return
    from raysynth.models.loading import load_or_explain, load_scheduler

    def build() -> None:
        # Of any size: how far levels are shifted decides nothing here.
        build_solver(name, settled(load_scheduler(source, {}), TRIED), edits=edits)

    load_or_explain("base.name: scheduler", source, build)


def _check_class(file: Path, settings: dict[str, Any], prediction: Any) -> None:
    """Refuse a scheduler whose base predicts what nothing here can integrate."""
    if prediction not in PREDICTIONS:
        raise ModelError(
            f"base.name: {file} has _class_name={settings.get('_class_name')!r:.80} and "
            f"prediction_type={prediction!r:.80}; expected one of {', '.join(PREDICTIONS)}. "
            "Fix: take the scheduler that the model was published with"
        )


def _check_start(synthesis: SynthesisConfig) -> None:
    """Refuse a Gaussian start that the solver cannot make; a knob that is not set asks for none."""
    above = synthesis.gaussian_above
    if above is not None and above < 1 and synthesis.solver not in ANYWHERE:
        raise ConfigError(
            f"synthesis.gaussian_above={above:g}: synthesis.solver={synthesis.solver} lays its "
            "levels out from pure noise; expected dpmsolver++ or unipc. Fix: "
            "synthesis.solver=dpmsolver++, or synthesis.gaussian_above=1"
        )


def check_schedule(schedule: str, solver: str, kind: str | None, prediction: str | None) -> None:
    """Refuse a schedule that the solver or the base cannot take; raises ConfigError.

    Parameters
    ----------
    schedule, solver : `synthesis.schedule`, `synthesis.solver`.
    kind : the solver's class in diffusers (`kind_of`); None: not known yet.
    prediction : what the base predicts; None: not known yet.
    """
    if schedule == EVEN:
        return
    if kind is not None and kind not in LAID_OUT:
        raise ConfigError(
            f"synthesis.schedule={schedule}: synthesis.solver={solver} is diffusers' {kind:.80}, "
            "whose levels are its own; expected dpmsolver++ or unipc. Fix: "
            f"synthesis.solver=dpmsolver++, or synthesis.schedule={EVEN}"
        )
    known = SCHEDULES[schedule].predictions
    if prediction is not None and prediction not in known:
        others = [name for name in SCHEDULES if prediction in SCHEDULES[name].predictions]
        raise ConfigError(
            f"synthesis.schedule={schedule}: is for bases that predict {' or '.join(known)}; "
            f"base.name predicts {prediction!r:.80}. Fix: synthesis.schedule={'|'.join(others)}"
        )


def kind_of(name: Any, settings: Mapping[str, Any]) -> str:
    """A solver's class, of its name and settings; one that is set to add noise is none of it."""
    noisy = str(settings.get("algorithm_type")).startswith("sde")
    noisy |= bool(settings.get("stochastic_sampling"))  # flow matching's
    return f"stochastic {name}" if noisy else str(name)


def check_repeatable(config: Sections) -> None:
    """Refuse, where images are bred, a base's own solver that adds noise; raises ConfigError.

    Of a hub id it is known when the base is loaded (`check_kind`).
    """
    source = resolve(config[BaseConfigSection].name)
    if config[SynthesisConfig].solver in DETERMINISTIC or not os.path.isdir(source):
        return
    file = Path(source) / "scheduler" / "scheduler_config.json"
    settings = read_config("base.name: scheduler", file)
    check_kind(kind_of(settings.get("_class_name"), settings))


def check_kind(kind: str) -> None:
    """Refuse to breed with a solver (`kind_of`) that adds noise; raises ConfigError."""
    if kind not in REPEATABLE:
        raise ConfigError(
            f"synthesis.rebalance: synthesis.solver=base is diffusers' {kind:.80}, which adds "
            "noise at its steps, so that an image inherits little of the noise that its parent "
            "began at; expected a deterministic solver. Fix: synthesis.solver=dpmsolver++"
        )


def _check_edits(schedule: str, recipe: Recipe) -> None:
    if schedule != EVEN and recipe.edits and recipe.strength < 1:
        raise ConfigError(
            f"synthesis.schedule={schedule}: generator={recipe.name} starts its edits at "
            f"synthesis.strength={recipe.strength:g} of the noise schedule, which is laid out "
            f"evenly; expected strength 1. Fix: synthesis.schedule={EVEN}, or synthesis.strength=1"
        )


def noise_of(scheduler: Any) -> Noise:
    """The noise schedule of a base, of its diffusers scheduler."""
    from raysynth.models.prediction import prediction_of

    prediction = prediction_of(scheduler)
    if prediction.alphas is None:
        return Noise(prediction.timesteps, None)
    alphas = prediction.alphas.double().numpy()
    return Noise(prediction.timesteps, np.sqrt((1 - alphas) / alphas))


def lay_out(
    solver: Any,
    steps: int,
    levels: Sequence[float] | None = None,
    device: Any = None,
    family: Family | None = None,
) -> None:
    """Set a solver's timesteps: its own, or exactly those of levels (`schedule`), falling.

    `family`: of the base, whose pipeline may ask its own flow-matching scheduler for others.

    diffusers' own arguments for this do not do: DPM-Solver++ takes timesteps, no sigmas, and none
    with `use_flow_sigmas`; UniPC takes sigmas with `use_flow_sigmas` alone, and shifts them again;
    both cut a flow's timesteps to whole numbers, so that the network is told another level than the
    solver goes on from.
    """
    import torch

    sigmas = family.sigmas(steps) if family and FLOW_MATCHING in type(solver).__name__ else None
    asked = {"num_inference_steps": steps} if sigmas is None else {"sigmas": sigmas}
    solver.set_timesteps(**asked, device=device)
    if levels is None:
        return
    noise, at = noise_of(solver), np.asarray(levels)
    sigmas = [*sigmas_of(noise, at), last_sigma(solver, noise)]
    solver.sigmas = torch.tensor(sigmas, dtype=torch.float32)
    told = torch.from_numpy(at * noise.timesteps)
    told = told.float() if noise.ratios is None else told.round().long()
    solver.timesteps = told.to(device=device)
    solver.set_begin_index(0)  # timesteps are not looked up: neighbours may look the same


def sigmas_of(noise: Noise, levels: np.ndarray) -> np.ndarray:
    """What diffusers' solvers call sigma: a flow's share of noise, a diffusion's noise per signal.

    `levels`: of any shape.
    """
    return levels if noise.ratios is None else noise.ratio(levels)


def last_sigma(solver: Any, noise: Noise) -> float:
    """Where the last step ends: without noise, but for diffusions that say otherwise."""
    if noise.ratios is None or solver.config.final_sigmas_type == "zero":
        return 0.0
    return float(noise.ratios[0])


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
    own = type(scheduler).__name__
    prediction = kind_of_prediction(own, scheduler.config)
    _check_prediction(name, prediction)
    options: dict[str, Any] = {}
    if name == "dpmsolver++":
        options["algorithm_type"] = "dpmsolver++"
    if name != "ddim":
        options["use_flow_sigmas"] = prediction == FLOW
    if FLOW_MATCHING in own:
        options |= {"prediction_type": FLOW, "flow_shift": shift_of(own, scheduler.config)}
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
