"""Where a run's steps are: settled once by one worker, the same for all actors and attempts.

Levels, and the Gaussians that images are drawn from above the highest, are kept beside the images
as soon as they are known: an attempt that goes on after a cut takes those of its images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.errors import ConfigError, DataError
from raysynth.generators.recipe import Recipe
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.files import read_record, write_atomic
from raysynth.synthesis.schedule import EVEN, SCHEDULES, Sought
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.synthesis.way import Way

if TYPE_CHECKING:
    from raysynth.synthesis.noise import Spectrum

FILE, GAUSSIANS = "levels.json", "gaussians.safetensors"
RETRIES = 3


def settled_way(config: Sections, recipe: Recipe, real: str, groups: Groups, work: str) -> Way:
    """The way of `synthesis.schedule`, from one task on a worker.

    Parameters
    ----------
    recipe : settled for the data set's counts.
    real, work : folders or URIs of the real table and of the stage's attempt.
    """
    synthesis = config[SynthesisConfig]
    if synthesis.schedule.name == EVEN and not recipe.midway:
        return Way()
    kept = f"{work}/{GAUSSIANS}" if recipe.midway else ""
    try:
        return Way(tuple(read_record(f"{work}/{FILE}", "levels", kind=list)["levels"]), kept)
    except DataError:  # none yet
        resources = config[ResourcesConfig]
        task = on_worker(find_levels, resources, max_retries=RETRIES)
        asked = (config[BaseConfigSection], synthesis, recipe, resources)
        found: tuple[float, ...] = ray.get(task.remote(*asked, real, groups, kept))
        write_atomic(f"{work}/{FILE}", json.dumps({"levels": found}).encode())
        return Way(found, kept)


def find_levels(
    base: BaseConfigSection,
    synthesis: SynthesisConfig,
    recipe: Recipe,
    resources: ResourcesConfig,
    real: str,
    groups: Groups,
    gaussians: str = "",
) -> tuple[float, ...] | None:
    """[N] falling levels, within this process, for the base's noise schedule; None: the solver's.

    `gaussians`: where those of real images are written to, if the recipe begins at them.

    Raises
    ------
    ConfigError
        The schedule does not go with the solver or with what the base predicts, or its levels do
        not fall from step to step.
    """
    # Not in the driver: torch, diffusers.
    from raysynth.models.base import load_base
    from raysynth.models.device import use_threads
    from raysynth.synthesis.denoise import latent_shape
    from raysynth.synthesis.encoded import real_latents
    from raysynth.synthesis.gaussian import gaussians_of, keep
    from raysynth.synthesis.spectrum import spectrum_of

    use_threads(resources.cpus_per_worker)
    loaded = load_base(base, ("scheduler",))
    side = latent_shape(loaded, synthesis.image_size)[1] * loaded.shape.factor

    def spectrum() -> Spectrum:
        return spectrum_of(load_base(base, ("vae",)), real, groups, side)

    sought = _sought(loaded.scheduler, synthesis, recipe, spectrum)
    if recipe.midway:
        keep(gaussians_of(*real_latents(load_base(base, ("vae",)), real, side), groups), gaussians)
    schedule = SCHEDULES[synthesis.schedule.name]
    found = schedule.levels(sought, synthesis.schedule.knobs(SCHEDULES))
    return None if found is None else fallen(sought.noise.trained(found).tolist(), synthesis)


def _sought(
    scheduler: Any, synthesis: SynthesisConfig, recipe: Recipe, spectrum: Callable[[], Spectrum]
) -> Sought:
    """What the schedule is asked for; raises ConfigError as `check_schedule`."""
    from raysynth.models.prediction import prediction_of
    from raysynth.synthesis.factors import exact, spread_factors
    from raysynth.synthesis.solver import build_solver, check_schedule, kind_of, noise_of

    solver = build_solver(synthesis.solver, scheduler)
    kind, prediction = kind_of(type(solver).__name__, solver.config), prediction_of(scheduler).kind
    check_schedule(synthesis.schedule.name, synthesis.solver, kind, prediction)
    noise, plain = replace(noise_of(scheduler), highest=recipe.begins), exact(solver)
    return Sought(
        steps=recipe.steps,
        noise=noise,
        factors=lambda levels, variances: spread_factors(plain, noise, levels, variances),
        spectrum=spectrum,
    )


def fallen(levels: Sequence[float], synthesis: SynthesisConfig) -> tuple[float, ...]:
    """The levels, if they fall from step to step within (0, 1); raises ConfigError otherwise."""
    fall = all(lower < higher for higher, lower in pairwise((1.0, *levels)))
    if not fall or levels[-1] < 0:
        shown = " ".join(f"{level:.4g}" for level in levels[:8])
        raise ConfigError(
            f"synthesis.schedule={synthesis.schedule.name}: synthesis.steps={len(levels)} lie "
            f"at {shown}...; expected levels that fall from step to step. Fix: fewer "
            f"synthesis.steps, or synthesis.schedule={EVEN}"
        )
    return tuple(levels)
