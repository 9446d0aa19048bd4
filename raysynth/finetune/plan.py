"""From clusters and configuration to the list of adapters that are to be trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import fsspec
import numpy as np
import pyarrow as pa

from raysynth.config import Config, FinetuneConfig
from raysynth.errors import ConfigError, DataError
from raysynth.groups import Groups, aligned_groups
from raysynth.prompts import spoken
from raysynth.runs import write_atomic

SHARED = -1
"""Group and cluster of an adapter that speaks for all groups."""


@dataclass(frozen=True)
class Adapter:
    """What one fine-tuning produced, as `adapters.json` and `<name>/adapter.json` record it."""

    name: str
    engine: str
    """lora: PEFT weights in the folder; full: `unet/` in the folder."""
    scope: str
    group: int
    """Group, -1 for shared."""
    cluster: int
    """Cluster within the group, -1 for shared."""
    label: str
    attribute: str
    prompt: str
    """Training prompt; "" for shared, which was trained on every group's `prompts.spoken`."""
    images: int
    """Training images."""
    steps: int
    """Optimizer steps taken."""
    loss: float
    """Mean training loss over the last tenth of the steps."""


@dataclass(frozen=True)
class Job:
    """One adapter to be trained; plain values, so that it travels to a worker as JSON."""

    name: str
    group: int
    cluster: int
    ids: tuple[str, ...]
    """Training images."""
    groups: tuple[int, ...]
    """Group of each image."""
    prompts: dict[int, str]
    """Prompt of each group that has images."""
    plain_prompts: dict[int, str]
    """The same without the rare token: DreamBooth's class prompts."""
    conflicting: tuple[int, ...]
    """Bias-conflicting groups, over-sampled at shared scope; empty otherwise."""
    steps: int
    """Optimizer steps, at most."""
    batch: int
    """Images per step; no more than there are."""
    learning_rate: float
    """AdamW's peak learning rate."""

    @property
    def work(self) -> int:
        """Images that pass the UNet until the last step."""
        return self.steps * self.batch


def plan_jobs(config: Config, clusters: pa.Table, groups: Groups) -> list[Job]:
    """The adapters of a run.

    Scope `group_cluster`: one per group and cluster; groups with fewer than `finetune.min_images`
    get none, the aligned group's adapters speak for them (Basu et al., 0.999). Scope `shared`: one
    for all groups; the prompt names label and attribute and keeps the rare token, which then stands
    for the data set's look, so prompts are the same in both scopes.

    Parameters
    ----------
    clusters : columns id, group, cluster; one row per training image.

    Raises
    ------
    ConfigError
        `finetune.overrides` names an adapter that there is not.
    DataError
        No group is large enough.
    """
    ids = np.array(clusters["id"].to_pylist(), dtype=object)
    group = clusters["group"].to_numpy()
    cluster = clusters["cluster"].to_numpy()
    counts = np.bincount(group, minlength=groups.count)
    if config.finetune.scope == "shared":
        aligned = set(aligned_groups(counts, groups).tolist())
        conflicting = [g for g in range(groups.count) if counts[g] and g not in aligned]
        everything = np.arange(len(ids))
        _check_overrides(config.finetune, ["shared"])
        return [_job(config, groups, "shared", SHARED, SHARED, ids, group, everything, conflicting)]
    jobs = []
    for g in np.flatnonzero(counts >= config.finetune.min_images).tolist():
        for k in np.unique(cluster[group == g]).tolist():
            rows = np.flatnonzero((group == g) & (cluster == k))
            jobs.append(_job(config, groups, f"{g}-{k}", g, k, ids, group, rows, []))
    _check_overrides(config.finetune, [job.name for job in jobs])
    if not jobs:
        sizes = ", ".join(f"{groups.name(g)}: {n}" for g, n in enumerate(counts.tolist()))
        raise DataError(
            f"finetune.min_images: no group has {config.finetune.min_images} images (got {sizes}); "
            "expected at least one such group. Fix: lower finetune.min_images, add images, or take "
            "finetune.scope=shared"
        )
    return jobs


def split_into_packs(jobs: Sequence[Job], per_worker: int | str, workers: int) -> list[list[Job]]:
    """Deal the jobs to packs of about the same work, each trained by one worker.

    `per_worker`: adapters per pack, or "auto": as many packs as workers. The longest jobs are dealt
    first, always to the pack that has least (Graham 1969, LPT), and lead their packs.
    """
    if not jobs:
        return []
    size = len(jobs) if per_worker == "auto" else int(per_worker)
    count = min(workers, len(jobs)) if per_worker == "auto" else -(-len(jobs) // size)
    packs: list[list[Job]] = [[] for _ in range(count)]
    for job in sorted(jobs, key=lambda job: -job.work):
        open_packs = [pack for pack in packs if len(pack) < size]
        min(open_packs, key=lambda pack: sum(j.work for j in pack)).append(job)
    return packs


def budget_of(settings: FinetuneConfig, name: str, images: int) -> tuple[int, int, float]:
    """Steps, images per step and learning rate of an adapter.

    A batch never holds an image twice. `finetune.max_passes` bounds how often each image is seen,
    since long training on few images memorises them; `finetune.overrides` has the last word.
    """
    own = settings.overrides.get(name)
    batch = min((own and own.batch_size) or settings.batch_size, images)
    steps = settings.steps
    if settings.max_passes is not None:
        seen = settings.accumulation * batch
        steps = min(steps, max(1, math.ceil(settings.max_passes * images / seen)))
    steps = (own and own.steps) or steps
    return steps, batch, (own and own.learning_rate) or settings.learning_rate


def record_of(job: Job, config: Config, groups: Groups, steps: int, loss: float) -> Adapter:
    """The record of a job that was trained to its end, `steps` steps."""
    one = job.group != SHARED
    return Adapter(
        name=job.name,
        engine=config.finetune.engine,
        scope=config.finetune.scope,
        group=job.group,
        cluster=job.cluster,
        label=groups.label_names[groups.label(job.group)] if one else "",
        attribute=groups.attribute_names[groups.attribute(job.group)] if one else "",
        prompt=job.prompts[job.group] if one else "",
        images=len(job.ids),
        steps=steps,
        loss=loss,
    )


def write_adapters(adapters: Sequence[Adapter], folder: str) -> None:
    """Write `adapters.json`, which says that the stage's folder is complete."""
    text = json.dumps([asdict(adapter) for adapter in adapters], indent=1)
    write_atomic(f"{folder}/adapters.json", text.encode())


def read_adapters(folder: str) -> list[Adapter]:
    """The adapters of a finished stage's folder or URI."""
    filesystem, path = fsspec.core.url_to_fs(f"{folder}/adapters.json")
    return [Adapter(**record) for record in json.loads(filesystem.cat_file(path))]


def write_adapter(adapter: Adapter, folder: str) -> None:
    """Write `adapter.json`, which says that this adapter's folder is complete."""
    write_atomic(f"{folder}/adapter.json", json.dumps(asdict(adapter), indent=1).encode())


def read_adapter(folder: str) -> Adapter | None:
    """The record of a trained adapter's folder; None while it is not complete."""
    filesystem, path = fsspec.core.url_to_fs(f"{folder}/adapter.json")
    return Adapter(**json.loads(filesystem.cat_file(path))) if filesystem.exists(path) else None


def _check_overrides(settings: FinetuneConfig, names: Sequence[str]) -> None:
    unknown = sorted(set(settings.overrides) - set(names))
    if unknown:
        raise ConfigError(
            f"finetune.overrides: no adapter {', '.join(unknown)}; this run has "
            f"{', '.join(names) or 'none'}. Fix: name one of them, or remove the entry"
        )


def _job(
    config: Config,
    groups: Groups,
    name: str,
    group: int,
    cluster: int,
    ids: np.ndarray,
    group_of: np.ndarray,
    rows: np.ndarray,
    conflicting: Sequence[int],
) -> Job:
    present = np.unique(group_of[rows]).tolist()
    steps, batch, learning_rate = budget_of(config.finetune, name, len(rows))
    return Job(
        name=name,
        group=group,
        cluster=cluster,
        ids=tuple(ids[rows].tolist()),
        groups=tuple(group_of[rows].tolist()),
        prompts={g: spoken(config.prompts, groups, g) for g in present},
        plain_prompts={g: spoken(config.prompts, groups, g, token="") for g in present},
        conflicting=tuple(conflicting),
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
    )
