"""A generator's candidates, made in this process, and what the judge and CLIP see in them.

Measured of images: right garment and ground (judge.py); `spread`, their mean distance from each
other over that of real images of the same group; `nearest_is_training`, how often the nearest of
as many training images and held-out ones is a training image (one half where nothing is memorised),
both in the embedding space of the base's CLIP. Costs are CPU seconds of this process.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from judge import accuracies, load_judge
from workload import jobs_of, pack_of

from raysynth.adapters.record import Adapter, read_adapter, write_adapters
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.finetune.training import train_pack
from raysynth.generators.inputs import training_inputs
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.knobs import digest_of
from raysynth.models.clip import load_clip
from raysynth.networks.build import blueprint_of
from raysynth.pipeline import run_pipeline
from raysynth.storage.tables import decode_images, groups_of, parquet_files, read_table
from raysynth.synthesis.contrast import contrasts
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.plan import plan_specs, whole
from raysynth.synthesis.sources import deal_sources
from raysynth.synthesis.specs import Asked
from raysynth.synthesis.way import Way

BATCH = 64
QUICK = ["finetune.steps=10", "synthesis.images_per_group=40", "classifier.steps=20"]
"""Settings of the quick modes."""


@dataclass(frozen=True)
class Real:
    """A run's real images, clusters and centroids."""

    folder: str
    clusters: pa.Table
    groups: Groups
    pixels: dict[str, np.ndarray]
    """Split -> [N, 32, 32, 3] uint8."""
    group: dict[str, np.ndarray]
    ids: dict[str, list[str]]

    @property
    def counts(self) -> np.ndarray:
        """[G] training images."""
        return np.bincount(self.group["train"], minlength=self.groups.count)


def prepared(storage: Path, severity: float = 0.99, seed: int = 0) -> Path:
    """The run of a data set whose clusters are there, made unless it is."""
    run = storage / f"data-{severity:g}-{seed}"
    if not (run / "clusters").exists():
        overrides = [f"storage_path={storage}", f"name={run.name}", f"seed={seed}"]
        overrides.append(f"dataset.severity={severity}")
        run_pipeline(load_config(None, overrides), until="clustering")
    return run


def hash_of(config: Config) -> str:
    """Folder name of the models that a configuration trains, on the data of one `prepared` run."""
    return digest_of([training_inputs(config), config.seed])


def load_real(run: Path) -> Real:
    """The real table and the clusters of a run's folder."""
    folder = f"{run}/real"
    files = parquet_files(folder)
    tables = {
        split: read_table(folder, files=[f for f in files if f"/{split}-" in f])
        for split in ("train", "validation", "test")
    }
    return Real(
        folder,
        read_table(f"{run}/clusters", files=[f"{run}/clusters/clusters.parquet"]),
        groups_of(tables["train"].schema),
        {split: decode_images(table["image"]) for split, table in tables.items()},
        {split: table["group"].to_numpy() for split, table in tables.items()},
        {split: table["id"].to_pylist() for split, table in tables.items()},
    )


def fine_tune(
    config: Config, real: Real, work: Path, clusters: pa.Table | None = None
) -> tuple[list[Adapter], float]:
    """The adapters of a configuration, trained unless they are there, and the CPU seconds."""
    torch.set_num_threads(1)
    jobs = jobs_of(config, real.clusters if clusters is None else clusters, real.groups)
    spent = work / "cpu_seconds.json"
    if not spent.exists():
        shutil.rmtree(work, ignore_errors=True)
        began = time.process_time()
        failed = train_pack(pack_of(config, jobs, real.groups, real.folder, str(work)), _quiet)
        if failed:
            raise SystemExit(f"{work}: {failed}")
        work.mkdir(parents=True, exist_ok=True)
        spent.write_text(json.dumps(time.process_time() - began))
    adapters = [a for job in jobs if (a := read_adapter(f"{work}/{job.name}")) is not None]
    write_adapters(adapters, str(work))
    return adapters, float(json.loads(spent.read_text()))


def _quiet(done: dict[str, int], *more: object, **told: object) -> None:
    pass


def draw(
    config: Config, real: Real, work: Path, adapters: list[Adapter]
) -> tuple[pa.Table, np.ndarray, float]:
    """Specs, their images [N, 32, 32, 3] and the CPU seconds."""
    dealt, recipe = None, settled(recipe_of(config), real.counts)
    if recipe.edits:
        dealt = deal_sources(real.clusters, real.groups, real.counts, config.seed)
    way = way_of(config, real, work)
    asked = (Asked.of(config, recipe), adapters, real.groups, real.counts)
    specs = whole(plan_specs(*asked, dealt, way.aims))
    return (specs, *generate(config, real, work, adapters, specs, way))


def generate(
    config: Config,
    real: Real,
    work: Path,
    adapters: list[Adapter],
    specs: pa.Table,
    way: Way | None = None,
) -> tuple[np.ndarray, float]:
    """Images [N, 32, 32, 3] of specs, and the CPU seconds; `way`: where it is settled already."""
    torch.set_num_threads(1)
    from raysynth.synthesis.task import Drawing

    way = way or way_of(config, real, work)
    drawing = Drawing.of(config, way=way)
    images = ImageGenerator(drawing, str(work), [a.name for a in adapters])
    masked = recipe_of(config).masked
    told = contrasts(config.prompts, real.groups, real.counts) if masked else None
    files = [f for f in parquet_files(real.folder) if "/train-" in f]
    table = read_table(real.folder, ["id", "image"], files)
    began, parts = time.process_time(), []
    for first in range(0, specs.num_rows, BATCH):
        batch = specs.slice(first, BATCH)
        sources = None
        if recipe_of(config).edits:
            place = pc.index_in(batch["source"], value_set=table["id"].combine_chunks())
            sources = table["image"].combine_chunks().field("bytes").take(place.combine_chunks())
        names = ("prompt", "negative_prompt", "adapter", "seed")
        spoken = None if told is None else [told[g] for g in batch["group"].to_pylist()]
        given = (batch[n].to_pylist() for n in names)
        groups = batch["group"].to_pylist()
        aims = {name: batch[name].to_pylist() for name in way.aims}
        parts.append(images(*given, sources=sources, contrasts=spoken, groups=groups, aims=aims))
    return np.concatenate(parts), time.process_time() - began


def way_of(config: Config, real: Real, work: Path) -> Way:
    """From which noise images are drawn, at which levels, and where to; kept in `work`."""
    from raysynth.synthesis.levels import find_way

    asked = (config.base, config.synthesis, recipe_of(config), config.resources)
    return find_way(*asked, real.folder, real.groups, str(work), config.seed)


class Observer:
    """Looks at images with the judge and the base's CLIP."""

    def __init__(self, config: Config, real: Real) -> None:
        self.real, self.judge, self.clip = real, load_judge(), load_clip(config.base)
        self.real_vectors = {
            split: self.clip.images(real.pixels[split]) for split in ("train", "test")
        }

    def look(self, pixels: np.ndarray, group: np.ndarray) -> dict[str, list[float]]:
        """Per group: share of right garments, of right grounds, and the spread."""
        rows = [self.look_at_one(pixels[group == g], g) for g in range(self.real.groups.count)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def look_at_one(self, pixels: np.ndarray, group: int) -> dict[str, float]:
        """The same of images that are all of one group."""
        seen = accuracies(self.judge, pixels, np.full(len(pixels), group), self.real.groups)
        there = self.real_vectors["test"][self.real.group["test"] == group]
        spread = distance(self.clip.images(pixels)) / distance(there)
        return {
            "garment": round(seen["garment"], 3),
            "ground": round(seen["ground"], 3),
            "spread": round(spread, 3),
        }

    def nearest_is_training(
        self, pixels: np.ndarray, training: np.ndarray, held_out: np.ndarray
    ) -> float:
        """Share of images whose nearest of training and held-out rows is a training image.

        `training`, `held_out`: as many row numbers of the training split each.
        """
        vectors = self.clip.images(pixels)
        near, far = (
            (vectors @ self.real_vectors["train"][rows].T).max(1) for rows in (training, held_out)
        )
        return float((near > far).mean())


def distance(vectors: np.ndarray) -> float:
    """Mean distance between two different rows of [N, D] unit vectors."""
    squared = np.clip(2 - 2 * vectors @ vectors.T, 0, None)
    return float(np.sqrt(squared).sum() / (len(vectors) * (len(vectors) - 1)))


def sheet(pixels: np.ndarray, group: np.ndarray, path: Path, columns: int = 24) -> None:
    """A contact sheet: two rows of images per group, twice enlarged."""
    from PIL import Image

    rows = []
    columns = min(columns, int(np.unique(group, return_counts=True)[1].min()) // 2)
    for g in np.unique(group).tolist():
        some = pixels[group == g][: 2 * columns]
        rows += [np.concatenate(list(part), 1) for part in (some[:columns], some[columns:])]
    whole = np.concatenate(rows, 0)
    Image.fromarray(whole).resize((whole.shape[1] * 2, whole.shape[0] * 2), 0).save(path)


def kept_by_score(config: Config, real: Real, pixels: np.ndarray, specs: pa.Table) -> np.ndarray:
    """[N] bool: the candidates that `selection` keeps."""
    from raysynth.scoring.scorer import open_scorers
    from raysynth.selection.copies import copy_thresholds, read_neighbours
    from raysynth.selection.stage import select
    from raysynth.synthesis.task import Task

    groups = real.groups
    clusters = str(Path(real.folder).parent / "clusters")
    task = Task.of(config, groups, "", (), clusters)
    scores = open_scorers(config.synthesis.scorers, task.scoring)(pixels, specs)
    candidates = specs.select(["id", "group", "cluster"])
    for name in ("clip_label", "clip_centroid", "nearest_similarity"):
        candidates = candidates.append_column(name, scores[name])
    limits = copy_thresholds(config.selection, read_neighbours(clusters), groups)
    return select(candidates, limits, config.selection, groups, config.seed)["kept"].to_numpy()


def validation_wga(
    config: Config, real: Real, pixels: np.ndarray, specs: pa.Table, seeds: int
) -> list[float]:
    """Validation WGA of the configured classifier on the best candidates by CLIP score."""
    from dataclasses import replace

    from raysynth.networks.images import Data
    from raysynth.training.fit import fit
    from raysynth.training.two_stage import configured, plan_of

    groups, settings = real.groups, config.classifier
    kept = kept_by_score(config, real, pixels, specs)
    train, validation = (
        image_set(real.pixels[split], real.group[split], real.ids[split], groups)
        for split in ("train", "validation")
    )
    group = specs["group"].to_numpy()
    chosen = np.array(specs["id"].to_pylist())[kept]
    data = Data(train, validation, image_set(pixels[kept], group[kept], chosen, groups), groups)
    found = []
    for seed in range(seeds):
        plan = replace(plan_of(configured(settings), settings, seed), evaluations=1)
        *_, last = fit(plan, data, blueprint_of(config))
        found.append(round(last.best()[1].wga, 3))
    return found


def image_set(pixels: np.ndarray, group: np.ndarray, ids: Sequence[str], groups: Groups) -> Any:
    """Images [N, H, W, 3] of groups [N] as networks take them."""
    from raysynth.networks.images import ImageSet

    label = group // len(groups.attribute_names)
    turned = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return ImageSet(turned, label.astype(np.int64), group.astype(np.int64), np.array(ids))
