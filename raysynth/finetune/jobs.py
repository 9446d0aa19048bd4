"""From clusters and configuration to the list of adapters that are to be trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from raysynth.adapters.record import Adapter
from raysynth.clustering.kmeans import most_clusters, of_group
from raysynth.clustering.settings import ClusteringConfig
from raysynth.errors import ConfigError
from raysynth.finetune.optimizer import rate_of
from raysynth.finetune.settings import AdapterOverride, FinetuneConfig
from raysynth.generators.lending import check_groups, settled, trained_groups
from raysynth.generators.recipe import Recipe, Training
from raysynth.groups.groups import Groups, aligned_groups
from raysynth.groups.prompts import both_alone, spoken
from raysynth.groups.settings import PromptConfig
from raysynth.sides import Sides

MOST_SINGLE = 2048
"""Adapters of single images: a gigabyte of the embedded base's, sixty of Stable Diffusion's."""
SHARED = -1
"""Group and cluster of an adapter that speaks for several groups."""


@dataclass(frozen=True)
class Job:
    """One adapter to be trained; plain values, so that it travels to a worker as JSON."""

    name: str
    scope: str
    """What it is trained on: see `recipe.Training`; never auto."""
    group: int
    """Group, or SHARED."""
    cluster: int
    """Cluster, or SHARED."""
    label: int
    """Label of all its images, or SHARED."""
    attribute: int
    """Attribute of all its images, or SHARED."""
    ids: tuple[str, ...]
    """Training images."""
    groups: tuple[int, ...]
    """Group of each image."""
    prompts: dict[int, str]
    """Prompt of each group that has images."""
    plain_prompts: dict[int, str]
    """The same without the rare token: DreamBooth's class prompts."""
    unseen: dict[int, str]
    """Prompt of each other group that the model speaks for, without any image of it."""
    conflicting: tuple[int, ...]
    """Bias-conflicting groups, over-sampled where a model speaks for several; empty otherwise."""
    oversample: float
    """Share of every batch that these groups get together: `finetune.oversample`, or less, as
    `max_passes` over all their images allow."""
    max_passes: float
    """Most times that an image of one group may be seen while other groups' are seen less."""
    steps: int
    """Optimizer steps, at most."""
    batch: int
    """Images per step; no more than there are."""
    learning_rate: float
    """The optimizer's peak learning rate."""
    rank: int | None = None
    """LoRA's; None: as `finetune` says."""
    alpha: float | None = None
    """The same."""
    parent: str = ""
    """Adapter that it goes on from, of an expert (`experts`) or an audit's (`without`)."""
    bin: int = -1
    """Number of its part of the noise levels; -1: all of them."""
    without: int = -1
    """Group that it is to forget, of a model that an audit trains; -1: none."""
    alone: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Of each group that the model speaks for, the prompts of its label and its attribute alone."""
    captions: tuple[str, ...] = ()
    """Prompt of each image, where images have their own; none: their groups'."""
    sizes: tuple[Sides, ...] = ()
    """Height and width of each image as it is stored, pixels, where images are trained in their own
    proportions (`sized`); none: all as squares of the base's."""
    aspect_ratio: float = 1.0
    """The longer side over the shorter one that they keep, at most."""
    cuts: bool = False
    """Whether prompts that are longer than the text encoder reads are cut; else they fail."""
    key: tuple[int, ...] = ()
    """What its random choices are drawn from besides the seed; none: its group and cluster."""

    @property
    def spoken(self) -> tuple[list[str], np.ndarray]:
        """The distinct prompts of its images, and [N] which of them each image has."""
        if self.captions:
            distinct, place = np.unique(np.array(self.captions, object), return_inverse=True)
            return distinct.tolist(), place
        order = sorted(self.prompts)
        return [self.prompts[g] for g in order], np.searchsorted(order, np.array(self.groups))

    @property
    def work(self) -> int:
        """Images that pass the UNet until the last step."""
        return self.steps * self.batch


def plan_jobs(
    recipe: Recipe,
    settings: FinetuneConfig,
    prompts: PromptConfig,
    clusters: pa.Table,
    groups: Groups,
) -> list[Job]:
    """The adapters of a run, as the generator's recipe says.

    One per group (`<group>-0`), cluster or image (`<group>-<number>`), per class
    (`class-<label>`), per attribute (`attribute-<attribute>`), or one for all groups (`shared`).

    Groups with fewer than `finetune.min_images` images are trained on by none, so that two images
    are not learnt by heart. A shared model's prompts name label and attribute, and the rare token
    stands for the data set's look. `clusters`: id, group, cluster, one row per training image.

    Raises
    ------
    ConfigError
        `finetune.overrides` names an adapter that there is not; too many images for one each.
    DataError
        A class has no group that is large enough.
    """
    ids = clusters["id"].to_numpy(zero_copy_only=False)
    group, cluster = clusters["group"].to_numpy(), clusters["cluster"].to_numpy()
    counts = np.bincount(group, minlength=groups.count)
    recipe = settled(recipe, counts)
    if recipe.training is None:
        return []
    check_groups(counts, groups, recipe)
    _check_number(recipe.training, int(counts.sum()))
    aligned = aligned_groups(counts, groups).tolist()
    jobs = []
    for own in _shares(recipe.training, group, cluster, counts, groups, recipe.min_images):
        present = np.unique(group[own.rows]).tolist()
        weak = tuple(g for g in present if recipe.training.shared and g not in aligned)
        job = _job(recipe.training, settings, own, ids[own.rows], group[own.rows], weak)
        jobs.append(_with_prompts(job, prompts, groups, recipe.token))
    check_overrides(settings, [job.name for job in jobs])
    return jobs


def _check_number(training: Training, images: int) -> None:
    """Refuse more adapters of single images than anyone means; raises ConfigError."""
    if training.scope == "image" and images > MOST_SINGLE:
        raise ConfigError(
            f"dataset.shots: {images} training images would have an adapter each; expected at most "
            f"{MOST_SINGLE}. Fix: dataset.shots=16, or a generator whose adapters see many images"
        )


def _with_prompts(job: Job, prompts: PromptConfig, groups: Groups, token: bool) -> Job:
    """The job with its groups' prompts, which hold the rare token if `token`."""
    present = sorted(set(job.groups))
    plain = {g: spoken(prompts, groups, g, token="") for g in present}
    words = None if token else ""
    said = {g: spoken(prompts, groups, g, token=words) for g in present}
    others = [g for g in _spoken_for(job, groups) if g not in present]
    unseen = {g: spoken(prompts, groups, g, token=words) for g in others}
    sides = {g: both_alone(prompts, groups, g, token=words) for g in (*present, *others)}
    return replace(job, prompts=said, plain_prompts=plain, unseen=unseen, alone=sides)


def _spoken_for(job: Job, groups: Groups) -> list[int]:
    """The groups that a job's model speaks for."""
    if job.group != SHARED:
        return [job.group]
    return [
        g
        for g in range(groups.count)
        if job.label in (SHARED, groups.label(g)) and job.attribute in (SHARED, groups.attribute(g))
    ]


def expected_jobs(
    recipe: Recipe,
    settings: FinetuneConfig,
    prompts: PromptConfig,
    clustering: ClusteringConfig,
    groups: Groups,
    counts: np.ndarray,
) -> list[Job]:
    """The adapters of `plan_jobs` before the clusters are known: as many as there can be.

    A group's clusters are taken as equally large, but for the remainder; images have no names. No
    other adapter's name can come up: clusters below `clustering.min_size` are merged.

    Parameters
    ----------
    counts : [G] training images per group.

    Raises
    ------
    ConfigError, DataError
        As `plan_jobs`.
    """
    cluster = []
    for g, images in enumerate(counts.tolist()):
        k = most_clusters(of_group(clustering, groups, g), images)
        cluster.append(np.minimum(np.arange(images) // max(1, images // k), k - 1))
    columns = {
        "id": pa.repeat("", int(counts.sum())),
        "group": np.repeat(np.arange(groups.count), counts),
        "cluster": np.concatenate(cluster),
    }
    return plan_jobs(recipe, settings, prompts, pa.table(columns), groups)


@dataclass(frozen=True)
class _Share:
    """The images of one adapter."""

    name: str
    group: int
    cluster: int
    label: int
    attribute: int
    rows: np.ndarray


def _job(
    training: Training,
    settings: FinetuneConfig,
    own: _Share,
    ids: np.ndarray,
    group: np.ndarray,
    weak: tuple[int, ...],
) -> Job:
    """The job of a share of the images, `ids` of groups `group`; `weak` groups are over-sampled."""
    steps, batch, learning_rate = budget_of(settings, training, own.name, len(ids))
    asked = settings.overrides.get(own.name, AdapterOverride())
    few, seen = int(np.isin(group, weak).sum()), steps * batch * settings.accumulation
    max_passes = training.budget.max_passes
    return Job(
        name=own.name,
        scope=training.scope,
        group=own.group,
        cluster=own.cluster,
        label=own.label,
        attribute=own.attribute,
        ids=tuple(ids.tolist()),
        groups=tuple(group.tolist()),
        prompts={},
        plain_prompts={},
        unseen={},
        conflicting=weak,
        oversample=min(settings.oversample, max_passes * few / seen),
        max_passes=max_passes,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        rank=asked.rank,
        alpha=asked.alpha,
    )


def _shares(
    training: Training,
    group: np.ndarray,
    cluster: np.ndarray,
    counts: np.ndarray,
    groups: Groups,
    min_images: int,
) -> list[_Share]:
    """What every adapter is trained on; `group`, `cluster`: [N] of the training images."""
    enough = trained_groups(counts, min_images)
    if training.scope == "all":
        every = np.flatnonzero(enough[group])
        return [_Share("shared", SHARED, SHARED, SHARED, SHARED, every)]
    label, attribute = np.divmod(group, len(groups.attribute_names))
    if training.scope == "class":
        of_class = [
            np.flatnonzero(enough[group] & (label == y)) for y in range(len(groups.label_names))
        ]
        return [
            _Share(f"class-{y}", SHARED, SHARED, y, SHARED, rows) for y, rows in enumerate(of_class)
        ]
    if training.scope == "attribute":
        return [
            _Share(f"attribute-{a}", SHARED, SHARED, SHARED, a, rows)
            for a in np.unique(attribute).tolist()
            if len(rows := np.flatnonzero(enough[group] & (attribute == a)))
        ]
    if training.scope == "group":
        cluster = np.zeros_like(cluster)
    if training.scope == "image":  # each a cluster of its group
        cluster = np.array([int((group[:row] == g).sum()) for row, g in enumerate(group)])
    return [
        _Share(f"{g}-{k}", g, k, groups.label(g), groups.attribute(g), rows)
        for g in np.flatnonzero(enough).tolist()
        for k in np.unique(cluster[group == g]).tolist()
        for rows in [np.flatnonzero((group == g) & (cluster == k))]
    ]


def budget_of(
    settings: FinetuneConfig, training: Training, name: str, images: int
) -> tuple[int, int, float]:
    """Steps, images per step and learning rate of an adapter.

    A batch never holds an image twice. The recipe's `max_passes` bounds how often each image is
    seen, since long training on few images memorises them; `finetune.overrides` has the last word.
    """
    own, budget = settings.overrides.get(name), training.budget
    batch = min((own and own.batch_size) or budget.batch_size, images)
    passes = budget.max_passes * images / (settings.accumulation * batch)
    steps = min(budget.steps, max(1, math.ceil(passes)))
    steps = (own and own.steps) or steps
    rate = rate_of(settings, budget.learning_rate)
    return steps, batch, (own and own.learning_rate) or rate


def record_of(job: Job, training: Training, groups: Groups, steps: int, loss: float) -> Adapter:
    """The record of a job that was trained to its end, `steps` steps."""
    one = job.group != SHARED
    return Adapter(
        name=job.name,
        engine=training.engine,
        scope=job.scope,
        group=job.group,
        cluster=job.cluster,
        label=groups.label_names[job.label] if job.label != SHARED else "",
        attribute=groups.attribute_names[job.attribute] if job.attribute != SHARED else "",
        prompt=job.prompts[job.group] if one else "",
        images=len(job.ids),
        steps=steps,
        loss=loss,
        parent=job.parent,
    )


def check_overrides(settings: FinetuneConfig, names: Sequence[str]) -> None:
    """Refuse `finetune.overrides` of adapters that are not among `names`; raises ConfigError."""
    unknown = sorted(set(settings.overrides) - set(names))
    if unknown:
        raise ConfigError(
            f"finetune.overrides: no adapter {', '.join(unknown)}; expected one of "
            f"{', '.join(names)}. Fix: name one of them, or remove the entry"
        )
