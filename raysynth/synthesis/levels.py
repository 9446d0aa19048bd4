"""Where a run's steps are: settled once by one worker, the same for all actors and attempts.

Levels, and the Gaussians that images are drawn from above the highest, are kept beside the images
as soon as they are known: an attempt that goes on after a cut takes those of its images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

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
from raysynth.synthesis.settings import ABOVE, SynthesisConfig
from raysynth.synthesis.solver import DETERMINISTIC, LAID_OUT

FILE, GAUSSIANS = "levels.json", "gaussians.safetensors"
RETRIES = 3


@dataclass(frozen=True)
class Way:
    """From which noise to the image: what all actors of a run are told."""

    levels: tuple[float, ...] | None = None
    """[N] falling noise levels of the steps; None: the solver's own, from pure noise."""
    gaussians: str = ""
    """File or URI of the Gaussians (`gaussian`) that images are drawn from and noised to the first
    level; empty: they begin as pure noise."""


def begins_midway(synthesis: SynthesisConfig, recipe: Recipe) -> bool:
    """Whether images begin at a noised Gaussian.

    Not those that are edited, which begin at a real image, nor those of a base that nothing was
    trained on, whose images tell what it draws by itself.
    """
    drawn = recipe.training is not None and not recipe.edits
    return drawn and highest_of(synthesis) < 1


def highest_of(synthesis: SynthesisConfig) -> float:
    """`synthesis.gaussian_above`, or what it is by itself with this solver."""
    if synthesis.gaussian_above is not None:
        return synthesis.gaussian_above
    return ABOVE if DETERMINISTIC.get(synthesis.solver) in LAID_OUT else 1.0


def settled_way(config: Sections, recipe: Recipe, real: str, groups: Groups, work: str) -> Way:
    """The way of `synthesis.schedule`, from one task on a worker.

    Parameters
    ----------
    recipe : settled for the data set's counts.
    real, work : folders or URIs of the real table and of the stage's attempt.
    """
    synthesis = config[SynthesisConfig]
    midway = begins_midway(synthesis, recipe)
    if synthesis.schedule.name == EVEN and not midway:
        return Way()
    kept = f"{work}/{GAUSSIANS}" if midway else ""
    try:
        return Way(tuple(read_record(f"{work}/{FILE}", "levels", kind=list)["levels"]), kept)
    except DataError:  # none yet
        sections = (config[BaseConfigSection], synthesis, config[ResourcesConfig])
        task = on_worker(find_levels, sections[-1], max_retries=RETRIES)
        found: tuple[float, ...] = ray.get(task.remote(*sections, real, groups, kept))
        write_atomic(f"{work}/{FILE}", json.dumps({"levels": found}).encode())
        return Way(found, kept)


def find_levels(
    base: BaseConfigSection,
    synthesis: SynthesisConfig,
    resources: ResourcesConfig,
    real: str,
    groups: Groups,
    gaussians: str = "",
) -> tuple[float, ...] | None:
    """[N] falling levels, within this process, for the base's noise schedule; None: the solver's.

    `gaussians`: file or URI that the Gaussians of real images are written to, from which steps then
    begin midway; empty: they begin at pure noise.

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
    from raysynth.synthesis.factors import exact, spread_factors
    from raysynth.synthesis.gaussian import gaussians_of, keep
    from raysynth.synthesis.solver import build_solver, check_schedule, kind_of, noise_of
    from raysynth.synthesis.spectrum import spectrum_of

    use_threads(resources.cpus_per_worker)
    loaded = load_base(base, ("scheduler",))
    solver = build_solver(synthesis.solver, loaded.scheduler)
    kind, prediction = kind_of(type(solver).__name__, solver.config), loaded.prediction.kind
    check_schedule(synthesis.schedule.name, synthesis.solver, kind, prediction)
    highest = highest_of(synthesis) if gaussians else 1.0
    noise, plain = replace(noise_of(loaded.scheduler), highest=highest), exact(solver)
    side = latent_shape(loaded, synthesis.image_size)[1] * loaded.shape.factor
    sought = Sought(
        steps=synthesis.steps,
        noise=noise,
        factors=lambda levels, variances: spread_factors(plain, noise, levels, variances),
        spectrum=lambda: spectrum_of(load_base(base, ("vae",)), real, groups, side),
    )
    if gaussians:
        keep(gaussians_of(*real_latents(load_base(base, ("vae",)), real, side), groups), gaussians)
    schedule = SCHEDULES[synthesis.schedule.name]
    found = schedule.levels(sought, synthesis.schedule.knobs(SCHEDULES))
    return None if found is None else fallen(noise.trained(found).tolist(), synthesis)


def fallen(levels: Sequence[float], synthesis: SynthesisConfig) -> tuple[float, ...]:
    """The levels, if they fall from step to step within (0, 1); raises ConfigError otherwise."""
    fall = all(lower < higher for higher, lower in pairwise((1.0, *levels)))
    if not fall or levels[-1] < 0:
        shown = " ".join(f"{level:.4g}" for level in levels[:8])
        raise ConfigError(
            f"synthesis.schedule={synthesis.schedule.name}: synthesis.steps={synthesis.steps} lie "
            f"at {shown}...; expected levels that fall from step to step. Fix: fewer "
            f"synthesis.steps, or synthesis.schedule={EVEN}"
        )
    return tuple(levels)
