"""The noise levels of a run: settled once by one worker, the same for all actors and attempts.

They are kept beside the images as soon as they are known: an attempt that goes on after a cut takes
those that its images were drawn at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import ray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.files import read_record, write_atomic
from raysynth.synthesis.schedule import EVEN, SCHEDULES, Sought
from raysynth.synthesis.settings import SynthesisConfig

FILE = "levels.json"
RETRIES = 3


def settled_levels(
    config: Sections, real: str, groups: Groups, work: str
) -> tuple[float, ...] | None:
    """The levels of `synthesis.schedule`, from one task on a worker; None: the solver's own.

    Parameters
    ----------
    real, work : folders or URIs of the real table and of the stage's attempt.
    """
    if config[SynthesisConfig].schedule.name == EVEN:
        return None
    try:
        return tuple(read_record(f"{work}/{FILE}", "levels", kind=list)["levels"])
    except DataError:  # none yet
        sections = (config[BaseConfigSection], config[SynthesisConfig], config[ResourcesConfig])
        task = on_worker(find_levels, sections[-1], max_retries=RETRIES)
        found: tuple[float, ...] = ray.get(task.remote(*sections, real, groups))
        write_atomic(f"{work}/{FILE}", json.dumps({"levels": found}).encode())
        return found


def find_levels(
    base: BaseConfigSection,
    synthesis: SynthesisConfig,
    resources: ResourcesConfig,
    real: str,
    groups: Groups,
) -> tuple[float, ...] | None:
    """[N] falling levels, within this process, for the base's noise schedule; None: the solver's.

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
    from raysynth.synthesis.factors import exact, spread_factors
    from raysynth.synthesis.solver import build_solver, check_schedule, kind_of, noise_of
    from raysynth.synthesis.spectrum import spectrum_of

    use_threads(resources.cpus_per_worker)
    loaded = load_base(base, ("scheduler",))
    solver = build_solver(synthesis.solver, loaded.scheduler)
    kind, prediction = kind_of(type(solver).__name__, solver.config), loaded.prediction.kind
    check_schedule(synthesis.schedule.name, synthesis.solver, kind, prediction)
    noise, plain = noise_of(loaded.scheduler), exact(solver)
    side = latent_shape(loaded, synthesis.image_size)[1] * loaded.shape.factor
    sought = Sought(
        steps=synthesis.steps,
        noise=noise,
        factors=lambda levels, variances: spread_factors(plain, noise, levels, variances),
        spectrum=lambda: spectrum_of(load_base(base, ("vae",)), real, groups, side),
    )
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
