"""What `raysynth generate` goes through: prompts in, images out; what it refuses beforehand."""

from __future__ import annotations

from typing import Any

from raysynth.cluster.capacity import check_before_ray
from raysynth.errors import ConfigError
from raysynth.knobs import decides
from raysynth.models.settings import base_of, clip_of
from raysynth.models.sources import check_base, check_clip
from raysynth.prompt_runs.adapters import Adapters, find_adapters
from raysynth.prompt_runs.gathered import check_adapters
from raysynth.prompt_runs.images import rows_of
from raysynth.prompt_runs.prompts import read_prompts
from raysynth.prompt_runs.rows import Rows
from raysynth.prompt_runs.settings import IDLE, NOTHING, GenerateConfig
from raysynth.scoring.columns import scores_of
from raysynth.scoring.scorer import SCORERS, OfPrompts
from raysynth.stages.course import Course
from raysynth.stages.graph import Contents, Node, graph, no_contents, up_to
from raysynth.stages.stage import Stage
from raysynth.storage.hashes import sha256_of
from raysynth.synthesis.checks import check_sides, check_size
from raysynth.synthesis.solver import check_solver

ADAPTERS = Stage(
    "adapters",
    "stacked",
    "raysynth.prompt_runs.gathered:build",
    decided_by=lambda config: {"base": base_of(config.base)},
    ray=False,
)
IMAGES = Stage(
    "synthesis",
    "images",
    "raysynth.prompt_runs.images:build",
    ("adapters",),
    decided_by=lambda config: {
        "knobs": decides(config.synthesis, *IDLE["synthesis"]),
        "recipe": [config.recipe.steps, config.recipe.guidance_scale],
        "base": base_of(config.base),
        "clip": clip_of(config.base),
        "count": config.count,
        "seed": config.seed,
        **({"size": config.size} if config.size else {}),
    },
)
EXPORT = Stage(
    "export",
    "export",
    "raysynth.prompt_runs.exported:build",
    ("synthesis",),
    decided_by=lambda config: {"form": config.export},
    ray=False,
    where=lambda config: config.export != NOTHING,
)
STAGES = (ADAPTERS, IMAGES, EXPORT)
FOLDERS = {stage.name: stage.folder for stage in STAGES}


def nodes_of(
    config: GenerateConfig, last: str | None = None, contents: Contents = no_contents
) -> list[Node]:
    """The stages of a run up to one of them."""
    return up_to(graph(STAGES, config, {"": config}, contents), last)


def contents_of(stage: Stage, config: GenerateConfig) -> dict[str, Any]:
    """What the file of prompts and the adapters' files hold."""
    if stage is IMAGES:
        return {"prompts": sha256_of(config.prompts)}
    if stage is not ADAPTERS:
        return {}
    files = find_adapters(read_prompts(config).paths, numbers=False).files
    return {"adapters": {name: sha256_of(file.path) for name, file in files.items()}}


def asked_of(config: GenerateConfig) -> tuple[Adapters, Rows]:
    """The adapters and images of a run, with all that any machine would refuse of them.

    Raises
    ------
    ConfigError, DataError, ModelError
        A base, CLIP, solver, scorer, adapter or prompt that cannot be used.
    """
    check_base(config.base)
    check_size(config.synthesis, config.base)
    if config.size is not None:
        check_sides(config.size, config.base, "size")
    check_solver(config)
    _check_scorers(config)
    prompts = read_prompts(config)
    adapters = find_adapters(prompts.paths)
    rows = rows_of(config, prompts, adapters)
    if adapters.files:
        check_adapters(adapters, config.base)
    return adapters, rows


def _check_scorers(config: GenerateConfig) -> None:
    names = [one.name for one in config.synthesis.scorers]
    for name in names:
        if not isinstance(SCORERS[name], OfPrompts):
            able = ", ".join(n for n in SCORERS if isinstance(SCORERS[n], OfPrompts))
            raise ConfigError(
                f"synthesis.scorers: {name} compares with a data set's real images or groups, and "
                f"there are none; expected some of {able}, or []. Fix: synthesis.scorers=[{able}]"
            )
    scores_of(names)
    if names:
        check_clip(config.base)


def check(config: GenerateConfig) -> list[str]:
    """Refuse what cannot be run, here or anywhere; no warnings.

    Raises ConfigError, DataError, ModelError.
    """
    check_before_ray(config)
    asked_of(config)
    return []


GENERATE = Course(FOLDERS, nodes_of, check, contents_of)
