"""What `raysynth train` goes through: images in, adapters out; and what it refuses beforehand."""

from __future__ import annotations

from collections import Counter
from typing import Any

from raysynth.adapter_runs.folders import Folders, read_folders
from raysynth.adapter_runs.settings import TrainConfig
from raysynth.adapter_runs.tuning import decided_by, jobs_of
from raysynth.cluster.capacity import check_before_ray
from raysynth.datasets.contents import folder_digest
from raysynth.datasets.garments import CLASSES
from raysynth.datasets.heads import read_heads
from raysynth.finetune.checks import check_finetune
from raysynth.finetune.jobs import Job
from raysynth.stages.course import Course
from raysynth.stages.graph import Contents, Node, graph, no_contents, up_to
from raysynth.stages.stage import Stage

IMAGES = Stage(
    "images",
    "images",
    "raysynth.adapter_runs.images:build",
    decided_by=lambda config: {"caption": config.caption, "least": config.finetune.min_images},
)
ADAPTERS = Stage(
    "finetune",
    "adapters",
    "raysynth.adapter_runs.tuning:build",
    ("images",),
    decided_by=decided_by,
)
STAGES = (IMAGES, ADAPTERS)
FOLDERS = {stage.name: stage.folder for stage in STAGES}


def nodes_of(
    config: TrainConfig, last: str | None = None, contents: Contents = no_contents
) -> list[Node]:
    """The stages of a run up to one of them."""
    return up_to(graph(STAGES, config, {"": config}, contents), last)


def contents_of(stage: Stage, config: TrainConfig) -> dict[str, Any]:
    """What the images' files hold."""
    return {"files": folder_digest(config.images)} if stage is IMAGES else {}


def asked_of(config: TrainConfig) -> tuple[Folders, list[Job]]:
    """The folders and adapters of a run, with all that any machine would refuse of them.

    Raises
    ------
    ConfigError, DataError, ModelError
        A base that is none, folders or images that cannot be used, an override of an adapter that
        there is not.
    """
    check_finetune(config)
    folders = read_folders(config)
    sizes = read_heads(folders.path, folders.files)
    names = {name: folder for folder, name in folders.names.items()}
    own = sizes if config.aspect_ratio > 1 else {}
    return folders, jobs_of(config, names, folders.by_adapter, own)


def check(config: TrainConfig) -> list[str]:
    """Refuse what cannot be run, here or anywhere; warnings of what can.

    Raises ConfigError, DataError, ModelError.
    """
    check_before_ray(config)
    folders, jobs = asked_of(config)
    return warnings_of(config, folders, jobs)


def warnings_of(config: TrainConfig, folders: Folders, jobs: list[Job]) -> list[str]:
    """What can be trained and is hardly meant."""
    strange = not all(any(word in said for word in CLASSES) for said in folders.captions)
    found = []
    if config.base.name == "embedded" and strange:
        found.append(
            "base.name=embedded: it knows ten kinds of garments at 32 x 32 pixels and nothing else "
            "(good to see that all works). Fix: base.name=<folder or hub id of a Stable Diffusion>"
        )
    several = [name for name, n in Counter(job.prompts[job.group] for job in jobs).items() if n > 1]
    if several and "{name}" not in config.caption and folders.own < len(folders.files):
        found.append(
            f"caption: {several[0]!r} is the prompt of every folder. Fix: speak of {{name}}"
        )
    return found


TRAIN = Course(FOLDERS, nodes_of, check, contents_of)
