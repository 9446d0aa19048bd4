"""The tasks of an audit by models without a group: some train these, others compare."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import numpy as np

from raysynth.adapters.record import LoraShape, read_adapter
from raysynth.audit.differences import Compared, compare
from raysynth.audit.method import Generated, Owed
from raysynth.audit.tasks import until_done
from raysynth.audit.unlearning import redirected, unlearners
from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import RETRIES, on_worker
from raysynth.errors import StageError, StorageError
from raysynth.finetune.jobs import plan_jobs
from raysynth.finetune.packs import Pack, split_into_packs
from raysynth.finetune.reached import Reached
from raysynth.finetune.settings import FinetuneConfig
from raysynth.finetune.training import train_pack
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import spoken
from raysynth.groups.settings import PromptConfig
from raysynth.models.clip import load_clip
from raysynth.models.settings import BaseConfigSection
from raysynth.models.threads import use_threads
from raysynth.registry import Chosen
from raysynth.storage.files import make_folder, read_now, sizes_below, write_atomic
from raysynth.storage.tables import read_table
from raysynth.synthesis.settings import SynthesisConfig

MODELS, PARTS, SAID = "models", "parts", "said"
"""Folders in the audit's `work`: models without a group, scores of some images, notices."""
TOGETHER = 64
"""Images whose scores are written at once: what is lost by a cut."""


def scored(generated: Generated, knobs: Any) -> Owed:
    """What the images owe; `knobs` are those of `methods.guda`.

    The facts: `losses` {name of the group: loss of the model without it at the end of its
    training}. Raises StageError where a model cannot be trained.
    """
    pack = _pack(generated, knobs)
    _unlearnt(generated, pack, knobs)
    scores = _compared(generated, pack, knobs)
    names = generated.groups.names
    losses = {
        names[job.without]: round(record.loss, 6)
        for job in pack.jobs
        if (record := read_adapter(pack.folder(job))) is not None
    }
    return Owed(scores, {"losses": losses}, (MODELS, PARTS, SAID))


def _pack(generated: Generated, knobs: Any) -> Pack:
    """All models without a group, as they are trained; without the loss, which has the full ones.

    A mean over small groups decides the loss, so nothing is held out; prompts are never dropped,
    and terms compared groups that are forgotten here.
    """
    config, recipe = generated.config, recipe_of(generated.config)
    assert recipe.training is not None, "refused before"
    settings, prompts = config[FinetuneConfig], config[PromptConfig]
    clusters = read_table(
        generated.clusters, ["id", "group", "cluster"], [f"{generated.clusters}/clusters.parquet"]
    )
    jobs = plan_jobs(recipe, settings, prompts, clusters, generated.groups)
    plain = {"objective": Chosen(name="denoising"), "terms": (), "patience": 0, "accumulation": 1}
    budget = replace(recipe.training.budget, steps=knobs.steps, ema=0.0, prior_weight=0.0)
    return Pack(
        jobs=unlearners(jobs, knobs.steps, knobs.learning_rate),
        training=replace(recipe.training, budget=budget),
        settings=settings.model_copy(update=plain | {"prompt_dropout": 0.0}),
        base=config[BaseConfigSection],
        resources=config[ResourcesConfig],
        groups=generated.groups,
        seed=config.seed,
        real=generated.real,
        work=f"{generated.work}/{MODELS}",
        parents=generated.adapters,
    )


def _unlearnt(generated: Generated, pack: Pack, knobs: Any) -> None:
    """Train the models that are not complete, dealt to the workers."""
    todo = [job for job in pack.jobs if read_adapter(pack.folder(job)) is None]
    if not todo:
        return
    resources, progress = pack.resources, generated.progress
    folder = f"{generated.work}/{SAID}"
    make_folder(folder)
    task = on_worker(_unlearn, resources, max_retries=RETRIES)
    packs = split_into_packs(todo, "auto", resources.workers)
    said = [f"{folder}/{number}.json" for number in range(len(packs))]
    prompts, cpus = generated.config[PromptConfig], resources.cpus_per_worker
    reached = Reached(pack.jobs, todo, pack.settings, pack.work)

    def look() -> None:
        with contextlib.suppress(StorageError):  # a count: the trainings go on without it
            for path in said:
                reached.take_in(read_now(path) or {})
        what = f"{len(pack.jobs)} models without a group, steps"
        progress.update(what, reached.done, reached.total)

    look()
    tasks = [
        task.remote(replace(pack, jobs=own), knobs, prompts, path, cpus)
        for own, path in zip(packs, said, strict=True)
    ]
    failed = {name: why for found in until_done(tasks, look) for name, why in found.items()}
    if failed:
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise StageError(
            f"audit: {len(failed)} of {len(pack.jobs)} models without a group failed:\n  {reasons}"
            "\nWhat is trained is kept. Fix: what the reasons say, then run again"
        )


def _unlearn(
    pack: Pack, knobs: Any, prompts: PromptConfig, said: str, cpus: float
) -> dict[str, str]:
    """Train a pack on a worker; the reason of every model that failed."""
    use_threads(cpus)
    reached: dict[str, int] = {}

    def report(done: dict[str, int], *more: Any, **told: Any) -> None:
        reached.update(done)
        with contextlib.suppress(StorageError):  # a notice
            write_atomic(said, json.dumps(reached).encode(), patience=0)

    return train_pack(redirected(pack, lambda: similar(pack, prompts), knobs), report)


def similar(pack: Pack, prompts: PromptConfig) -> np.ndarray:
    """[G, G] cosines of the groups' prompts, without the rare token, in CLIP's space."""
    groups: Groups = pack.groups
    texts = [spoken(prompts, groups, g, token="") for g in range(groups.count)]
    vectors = load_clip(pack.base).texts(texts)
    cosines: np.ndarray = vectors @ vectors.T
    return cosines


def _compared(generated: Generated, pack: Pack, knobs: Any) -> np.ndarray:
    """[N, G] scores of the images, part by part on the workers."""
    images, resources, folder = generated.images, pack.resources, f"{generated.work}/{PARTS}"
    make_folder(folder)
    paths = [f"{folder}/{n:05d}.parquet" for n in range(-(-images.num_rows // TOGETHER))]
    parts = {path: images.slice(n * TOGETHER, TOGETHER) for n, path in enumerate(paths)}
    asked, workers = _asked(generated, pack, knobs), min(resources.workers, len(paths))
    task = on_worker(compare, resources, max_retries=RETRIES)
    dealt = [{path: parts[path] for path in paths[n::workers]} for n in range(workers)]

    def look() -> None:
        with contextlib.suppress(StorageError):  # a count
            there = sizes_below(folder)
            done = sum(parts[path].num_rows for path in paths if path[len(folder) + 1 :] in there)
            generated.progress.update("images compared", done, images.num_rows)

    tasks = [task.remote(asked, own, resources.cpus_per_worker) for own in dealt]
    until_done(tasks, look)
    found = read_table(generated.work, files=paths)
    assert found["id"].equals(images["id"]), "parts in order"
    return np.array(found["scores"].to_pylist(), np.float32)


def _asked(generated: Generated, pack: Pack, knobs: Any) -> Compared:
    models: dict[str, dict[int, str]] = {}
    for job in pack.jobs:
        models.setdefault(job.parent, {})[job.without] = job.name
    settings = pack.settings
    return Compared(
        base=pack.base,
        training=pack.training,
        shape=LoraShape.of(settings),
        full=pack.parents,
        without=pack.work,
        models=models,
        groups=generated.groups.count,
        synthetic=generated.synthetic,
        timesteps=knobs.timesteps,
        rows=generated.config[SynthesisConfig].batch_size,
    )
