"""`generator: auto`: which generator's images each group takes, by validation and label fidelity.

Every candidate's kept images train a classifier with the configured settings; so does the mix in
which each group takes the candidate whose images a probe recognises best. What has the best
validation score is taken. The probe knows the real training images only: balanced logistic heads
for label and attribute on the base's CLIP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.clustering.settings import ClusteringConfig
from raysynth.fidelity.probe import recognised
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import GroupMetrics
from raysynth.knobs import Sections
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import Data, ImageSet
from raysynth.networks.settings import ClassifierConfig
from raysynth.progress import Progress
from raysynth.search.settings import SearchConfig
from raysynth.stages.stage import Work
from raysynth.storage import tables
from raysynth.storage.files import make_folder, open_storage, write_atomic
from raysynth.synthesis.shards import ShardRecord, read_manifest, write_manifest
from raysynth.training.data import load_real_data, load_synthetic
from raysynth.training.two_stage import configured, plan_of
from raysynth.training.units import Records, Units, run_units

SEEDS = 2
"""Trainings of each composition; validation groups are small."""
MIX = "mix"
CHOICE, UNITS = ".choice.json", ".units"
"""Beside the images; see `shards.MANIFEST` for such names."""


@dataclass(frozen=True)
class Made:
    """A candidate's synthetic table and its selection: folders or URIs."""

    synthetic: str
    selection: str


def run_choice(
    config: Sections,
    real: str,
    made: Mapping[str, Made],
    groups: Groups,
    work: str,
    progress: Progress,
) -> dict[str, Any]:
    """Choose a generator per group and compose the run's synthetic table in `work`.

    Parameters
    ----------
    made : generator -> its images.

    Returns
    -------
    Facts: rows, chosen {group name: generator}, validation {composition: mean WGA}, fidelity
    {generator: {group name: share recognised}}.

    Raises
    ------
    StageError
        Naming trainings that failed.
    """
    progress.update("decoding images")
    data = load_real_data(config[ClassifierConfig].image_size, real, groups)
    images = {
        name: load_synthetic(each.synthetic, each.selection, data.train.size)
        for name, each in made.items()
    }
    blueprint, batch = blueprint_of(config), config[ClusteringConfig].batch_size
    shares = recognised(blueprint, config[ResourcesConfig], data, images, batch)
    compositions = _compositions(shares, groups)
    scores = {
        name: _mean(_train(config, data, composed(images, by), work, name, progress))
        for name, by in compositions.items()
    }
    winner = max(scores, key=lambda name: scores[name].score)
    chosen = compositions[winner]
    found: dict[str, Any] = {
        "chosen": dict(zip(groups.names, chosen, strict=True)),
        "validation": {name: scores[name].wga for name in scores},
        "fidelity": {
            name: dict(zip(groups.names, of_groups.round(4).tolist(), strict=True))
            for name, of_groups in shares.items()
        },
    }
    write_atomic(f"{work}/{CHOICE}", json.dumps(found, indent=1).encode())
    said = ", ".join(f"{group}: {name}" for group, name in found["chosen"].items())
    progress.say(f"  chosen by validation WGA {scores[winner].wga:.3f} ({winner}): {said}")
    return {"rows": _publish(made, chosen, work), **found}


def _compositions(shares: dict[str, Any], groups: Groups) -> dict[str, tuple[str, ...]]:
    """What is compared: every generator for all groups, and the best recognised of every group."""
    compositions = {name: (name,) * groups.count for name in shares}
    best = tuple(max(shares, key=lambda name: shares[name][g]) for g in range(groups.count))
    if best not in compositions.values():
        compositions[MIX] = best
    return compositions


def composed(images: Mapping[str, ImageSet], composition: Sequence[str]) -> ImageSet:
    """The images of every group from its generator; `composition`: [G] names."""
    parts = [
        images[name].take(np.flatnonzero(images[name].group == g))
        for g, name in enumerate(composition)
    ]
    return ImageSet(
        *(
            np.concatenate([getattr(p, f) for p in parts])
            for f in ("pixels", "label", "group", "ids")
        )
    )


def choose_selection(
    made: Mapping[str, Made],
    chosen: Sequence[str],
    facts: Mapping[str, Mapping[str, Any]],
    groups: Groups,
    work: str,
) -> dict[str, Any]:
    """The selection table of the composed images: each group's rows from its generator.

    Parameters
    ----------
    chosen : [G] generators; facts : generator -> facts of its selection.

    Returns
    -------
    The selection stage's facts, every group's from its generator.
    """
    parts = []
    for g, name in enumerate(chosen):
        table = tables.read_table(made[name].selection)
        parts.append(table.filter(pc.equal(table["group"], g)))
    table = pa.concat_tables(parts)
    tables.write_table(table, f"{work}/selection.parquet")
    per_group = {
        key: {
            group: facts[name][key][group] for group, name in zip(groups.names, chosen, strict=True)
        }
        for key in ("threshold", "copy_threshold", "kept_per_cluster", "copies")
    }
    known = "validation_in_training"  # the same of all generators
    twice = {known: facts[chosen[0]][known]} if known in facts[chosen[0]] else {}
    kept = table.filter(table["kept"])
    sizes = np.bincount(kept["group"].to_numpy(), minlength=groups.count)
    return {
        "rows": table.num_rows,
        "kept": kept.num_rows,
        "kept_per_group": int(sizes.min()),
        **per_group,
        **twice,
    }


def _train(
    config: Sections, data: Data, images: ImageSet, work: str, name: str, progress: Progress
) -> Records:
    classifier, size = config[ClassifierConfig], data.train.size
    folder = f"{work}/{UNITS}/{name}"
    units = Units(folder, blueprint_of(config), config[ResourcesConfig], data.groups, size)
    make_folder(folder)
    settings, heads = configured(classifier), config[SearchConfig].heads
    plans = [plan_of(settings, classifier, seed, heads) for seed in range(SEEDS)]
    shared = ray.put(replace(data, synthetic=images))
    return run_units(units, plans, shared, progress, f"classifiers on {name}")


def _mean(records: Records) -> GroupMetrics:
    """Mean over the seeds of each seed's best head."""
    best = [
        max(
            (GroupMetrics.from_dict(head["validation"]) for head in record["best"].values()),
            key=lambda metrics: metrics.score,
        )
        for record in records.values()
    ]
    wga, aga, weighted = np.mean([(m.wga, m.aga, m.weighted) for m in best], axis=0).tolist()
    groups = np.mean([m.groups for m in best], axis=0).tolist()
    return GroupMetrics(tuple(groups), wga, aga, weighted)


def _publish(made: Mapping[str, Made], chosen: Sequence[str], work: str) -> int:
    """Copy the shards of every group from its generator; shards hold one group each."""
    records = []
    target = open_storage(work)[1]
    for g, name in enumerate(chosen):
        manifest = read_manifest(made[name].synthetic)
        assert manifest is not None, "a candidate's synthesis stage is finished"
        filesystem, source = open_storage(made[name].synthetic)
        for shard in manifest["shards"]:
            if shard["group"] == g:
                filesystem.cp_file(f"{source}/{shard['file']}", f"{target}/{shard['file']}")
                records.append(ShardRecord(**shard))
    write_manifest(work, records, {"chosen": list(chosen)})
    return sum(record.rows for record in records)


def build(work: Work) -> dict[str, Any]:
    """The synthetic table that is chosen, see `run_choice`."""
    real, made = work.path("ingest"), _made(work)
    return run_choice(work.config, real, made, work.groups, work.folder, work.progress)


def build_chosen(work: Work) -> dict[str, Any]:
    """Its selection, see `choose_selection`."""
    chosen = list(work.inputs["synthesis"].facts["chosen"].values())
    made = _made(work)
    parts = {name: work.inputs[f"selection/{name}"].facts for name in made}
    return choose_selection(made, chosen, parts, work.groups, work.folder)


def _made(work: Work) -> dict[str, Made]:
    """Generator -> its images, of all candidates."""
    names = [name.partition("/")[2] for name in work.inputs if name.startswith("selection/")]
    return {
        name: Made(work.path(f"synthesis/{name}"), work.path(f"selection/{name}")) for name in names
    }
