"""The second stage: an adapter for each folder, by the engine of fine-tuning; cards beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from raysynth.adapter_runs.cards import write_cards
from raysynth.adapter_runs.images import read_trained, sizes_in
from raysynth.adapter_runs.settings import TrainConfig, spoken
from raysynth.adapter_runs.unchanged import note_origins, origins_of, take_over
from raysynth.finetune.jobs import SHARED, Job, budget_of, check_overrides
from raysynth.finetune.stage import train_jobs
from raysynth.generators.inputs import training_inputs
from raysynth.groups.groups import Groups
from raysynth.models.settings import base_of
from raysynth.sides import Sides
from raysynth.stages.stage import Work


def jobs_of(
    config: TrainConfig,
    names: Mapping[str, str],
    images: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
    sizes: Mapping[str, Sides],
) -> list[Job]:
    """The adapters of a run, each a function of its own folder, whatever others there are.

    Parameters
    ----------
    names : adapter -> its folder.
    images : adapter -> ids and captions of its images.
    sizes : image -> height and width, pixels; none where all are trained as squares.

    Raises ConfigError for `finetune.overrides` of an adapter that there is not.
    """
    jobs = []
    for label, (name, folder) in enumerate(names.items()):
        job = _job(config, label, name, spoken(config.caption, folder), *images[name])
        own = tuple(sizes[each] for each in job.ids) if sizes else ()
        jobs.append(replace(job, sizes=own, aspect_ratio=config.aspect_ratio))
    check_overrides(config.finetune, [job.name for job in jobs])
    return jobs


def _job(
    config: TrainConfig,
    label: int,
    name: str,
    prompt: str,
    ids: tuple[str, ...],
    captions: tuple[str, ...],
) -> Job:
    """The job of an adapter; `prompt`: of images without a caption, `captions`: of each image."""
    training = config.training
    steps, batch, rate = budget_of(config.finetune, training, name, len(ids))
    return Job(
        name=name,
        scope=training.scope,
        group=label,
        cluster=0,
        label=label,
        attribute=SHARED,
        ids=ids,
        groups=(label,) * len(ids),
        prompts={label: prompt},
        plain_prompts={label: prompt},
        unseen={},
        conflicting=(),
        oversample=0.0,
        max_passes=training.budget.max_passes,
        steps=steps,
        batch=batch,
        learning_rate=rate,
        captions=captions if set(captions) != {prompt} else (),
        cuts=any(one != prompt for one in captions),
        key=key_of(name),
    )


def decided_by(config: TrainConfig) -> dict[str, Any]:
    """What adapters depend on besides their images and captions."""
    told = training_inputs(config)
    del told["prompts"]  # captions, which every adapter has its own of
    kept = {"aspect_ratio": config.aspect_ratio} if config.aspect_ratio > 1 else {}
    return {**told, "base": base_of(config.base), "seed": config.seed, **kept}


def key_of(name: str) -> tuple[int, ...]:
    """Numbers of an adapter's name, for its random choices."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return tuple(np.frombuffer(digest, "<u4").tolist())


def build(work: Work) -> dict[str, Any]:
    """Train what is not complete, then write cards; facts as `finetune.stage.run_finetune`."""
    config, real = work.config, work.path("images")
    assert isinstance(config, TrainConfig)
    groups = Groups.from_dict(work.inputs["images"].facts["groups"])
    trained = read_trained(real, groups.label_names)
    names = dict(zip(groups.label_names, groups.label_words, strict=True))
    images = {name: trained.of(label) for label, name in enumerate(trained.names)}
    jobs = jobs_of(config, names, images, sizes_in(real) if config.aspect_ratio > 1 else {})
    origins = origins_of(jobs, decided_by(config), real)
    before = work.run.folder("finetune")
    if taken := take_over(jobs, origins, before, work.folder):
        work.progress.say(f"  {taken:,} of {len(jobs):,} adapters are unchanged, and kept")
    given = (real, groups, work.folder, work.progress, work.tracker)
    facts = train_jobs(jobs, config, config.training, *given)
    note_origins(origins, work.folder)
    write_cards(config, jobs, real, work.folder)
    return facts
