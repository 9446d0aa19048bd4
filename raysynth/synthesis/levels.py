"""Where a run's steps are: settled once by one worker, the same for all actors and attempts.

Levels, the Gaussians that images are drawn from above the highest, and what guidance learnt of the
real images are kept beside the images as soon as they are known: an attempt that goes on after a
cut takes those of its images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import RETRIES, on_worker
from raysynth.errors import ConfigError, DataError
from raysynth.generators.recipe import Recipe
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.models.headers import is_whole
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.files import open_storage, read_record, write_atomic
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.schedule import EVEN, SCHEDULES, Sought
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.synthesis.way import Way

if TYPE_CHECKING:
    from raysynth.synthesis.noise import Spectrum

FILE, GAUSSIANS, FITS = "levels.json", "gaussians.safetensors", "guidance.safetensors"


def settled_way(config: Sections, recipe: Recipe, real: str, groups: Groups, work: str) -> Way:
    """The way of `synthesis.schedule` and `synthesis.guidance`, from one task on a worker.

    Parameters
    ----------
    recipe : settled for the data set's counts.
    real, work : folders or URIs of the real table and of the stage's attempt.
    """
    synthesis = config[SynthesisConfig]
    fitted = guide_of(synthesis.guidance, recipe.guidance_scale).fitted
    if _own(synthesis, recipe) and not fitted:
        return Way()
    try:
        return _noted(work, recipe, bool(fitted))
    except DataError:  # none yet
        resources = config[ResourcesConfig]
        task = on_worker(find_way, resources, max_retries=RETRIES)
        asked = (config[BaseConfigSection], synthesis, recipe, resources)
        found: Way = ray.get(task.remote(*asked, real, groups, work, config.seed))
        noted: dict[str, Any] = {
            "levels": found.levels or [],
            **({"aims": found.aims} if fitted else {}),
        }
        write_atomic(f"{work}/{FILE}", json.dumps(noted).encode())
        return found


def _own(synthesis: SynthesisConfig, recipe: Recipe) -> bool:
    """Whether levels are the solver's own."""
    return synthesis.schedule.name == EVEN and not recipe.midway


def _noted(work: str, recipe: Recipe, fitted: bool) -> Way:
    """What an earlier attempt settled; raises DataError where there is none, or it is not whole."""
    file = f"{work}/{FILE}"
    levels = tuple(read_record(file, "levels", kind=list)["levels"]) or None
    gaussians = f"{work}/{GAUSSIANS}" if recipe.midway else ""
    for each in (gaussians, f"{work}/{FITS}" if fitted else ""):
        if each and not is_whole(*open_storage(each)):
            raise DataError(f"{each}: not there, or cut off")
    if not fitted:
        return Way(levels, gaussians)
    aims = {name: tuple(own) for name, own in read_record(file, "aims")["aims"].items()}
    return Way(levels, gaussians, f"{work}/{FITS}", aims)


def find_way(
    base: BaseConfigSection,
    synthesis: SynthesisConfig,
    recipe: Recipe,
    resources: ResourcesConfig,
    real: str,
    groups: Groups,
    work: str = "",
    seed: int = 0,
) -> Way:
    """Levels for the base's noise schedule, and what is made of real images, within this process.

    `work`: folder or URI where the latter is written to; `seed`: the run's. Raises ConfigError:
    the schedule does not go with the solver or with what the base predicts, or its levels do not
    fall from step to step.
    """
    # Not in the driver: torch, diffusers.
    from raysynth.models.base import load_base
    from raysynth.models.threads import use_threads
    from raysynth.synthesis import fits, gaussian
    from raysynth.synthesis.encoded import real_latents
    from raysynth.synthesis.spectrum import spectrum_of

    use_threads(resources.cpus_per_worker)
    loaded = load_base(base, ("scheduler",), size=synthesis.image_size)
    side = loaded.image_size
    latents = cache(lambda: real_latents(load_base(base, ("vae",)), real, side))
    sought = _sought(loaded.scheduler, synthesis, recipe, lambda: spectrum_of(*latents(), groups))
    guide = guide_of(synthesis.guidance, recipe.guidance_scale)
    way = Way(_levels(sought, synthesis), f"{work}/{GAUSSIANS}" if recipe.midway else "")
    if recipe.midway:
        gaussian.keep(gaussian.gaussians_of(*latents(), groups), way.gaussians)
    if not guide.fitted:
        return way
    learnt = fits.fits_of(guide, *latents(), groups.count, seed)
    fits.keep(learnt, f"{work}/{FITS}")
    return replace(way, fits=f"{work}/{FITS}", aims={n: fit.aims for n, fit in learnt.items()})


def _levels(sought: Sought, synthesis: SynthesisConfig) -> tuple[float, ...] | None:
    """[N] falling levels; None: the solver's own."""
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
