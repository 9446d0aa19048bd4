"""The clustering stage: embeddings, clusters and centroids as three small tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.cluster.settings import ResourcesConfig
from raysynth.clustering.checks import check_groups
from raysynth.clustering.embed import (
    CENTROIDS_FILE,
    EMBEDDINGS_FILE,
    NEIGHBOURS_FILE,
    VALIDATION_FILE,
    column_vectors,
    embed_real_images,
    encoded,
    read_embeddings,
    vectors_column,
)
from raysynth.clustering.kmeans import Clustering, cluster_group, of_group
from raysynth.clustering.neighbours import real_neighbours
from raysynth.clustering.settings import ClusteringConfig
from raysynth.errors import DamagedError
from raysynth.groups.groups import Groups, require_every_group
from raysynth.knobs import Sections
from raysynth.models.settings import BaseConfigSection
from raysynth.progress import Progress
from raysynth.stages.stage import Work
from raysynth.storage.files import exists
from raysynth.storage.tables import count_rows, split_files, write_table

CLUSTERS = pa.schema([("id", pa.string()), ("group", pa.int32()), ("cluster", pa.int32())])
CENTROIDS = pa.schema([("group", pa.int32()), ("embedding", pa.list_(pa.float32()))])


def run_clustering(
    config: Sections, real: str, groups: Groups, work: str, progress: Progress
) -> dict[str, Any]:
    """Embed the training images (`real`: folder or URI of the real table), cluster every group.

    Writes to `work` embeddings.parquet and validation.parquet (see `embed.EMBEDDINGS`),
    clusters.parquet (id, group, cluster), centroids.parquet (group, embedding: the group's mean in
    CLIP's space, renormalised) and neighbours.parquet (validation images' nearest training images,
    which calibrate the measure of copies). Embeddings that an earlier, cut-off attempt completed
    are used again.

    Returns
    -------
    Facts: rows, `sizes` {group name: [images per cluster]}, `silhouettes` {group name: {k: score}}.

    Raises
    ------
    DataError
        If a group has no image, or fewer than `clustering.k`.
    """
    table, validation = _embeddings(config, real, work, progress)
    group = table["group"].to_numpy()
    counts = np.bincount(group, minlength=groups.count)
    require_every_group(counts, groups, "train")
    check_groups(config, groups, counts)

    found = _cluster(config[ClusteringConfig], config.seed, groups, group, encoded(table), progress)
    _write(table, found, work)
    progress.update("neighbours searched")
    neighbours = real_neighbours(table, validation, groups, config.seed)
    write_table(neighbours, f"{work}/{NEIGHBOURS_FILE}")
    named = dict(zip(groups.names, found, strict=True))
    sizes = {name: clustering.sizes for name, clustering in named.items()}
    progress.say("  clusters: " + "; ".join(f"{name} {sizes[name]}" for name in sizes))
    scores = {name: clustering.rounded_silhouettes for name, clustering in named.items()}
    return {"rows": table.num_rows, "sizes": sizes, "silhouettes": scores}


def _write(table: pa.Table, found: list[Clustering], work: str) -> None:
    """clusters.parquet and centroids.parquet; `found`: the clusters of every group."""
    group = table["group"].to_numpy()
    labels = np.empty(len(group), np.int32)
    for g, clustering in enumerate(found):
        labels[group == g] = clustering.labels
    cluster_table = pa.table([table["id"], table["group"], labels], schema=CLUSTERS)
    write_table(cluster_table, f"{work}/clusters.parquet")
    centroids = vectors_column(_centroids(column_vectors(table["embedding"]), group, len(found)))
    numbers = np.arange(len(found), dtype=np.int32)
    write_table(pa.table([numbers, centroids], schema=CENTROIDS), f"{work}/{CENTROIDS_FILE}")


def _cluster(
    config: ClusteringConfig,
    seed: int,
    groups: Groups,
    group: np.ndarray,
    vectors: np.ndarray,
    progress: Progress,
) -> list[Clustering]:
    """[G] the clusters of every group."""
    found = []
    for g in range(groups.count):
        progress.update("groups clustered", g, groups.count)
        own = of_group(config, groups, g)
        found.append(cluster_group(vectors[group == g], own, seed, g))
    return found


def _centroids(vectors: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """[G, D] mean of each group's vectors, renormalised."""
    means = np.stack([vectors[group == g].mean(axis=0) for g in range(count)])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _embeddings(
    config: Sections, real: str, work: str, progress: Progress
) -> tuple[pa.Table, pa.Table]:
    """Those of an earlier attempt, or made now."""
    if not _embedded(work, real):
        sections = (config[ClusteringConfig], config[BaseConfigSection], config[ResourcesConfig])
        train, validation = embed_real_images(*sections, real, progress)
        write_table(validation, f"{work}/{VALIDATION_FILE}")
        write_table(train, f"{work}/{EMBEDDINGS_FILE}")
    return read_embeddings(work), read_embeddings(work, VALIDATION_FILE)


def _embedded(work: str, real: str) -> bool:
    """Whether an earlier attempt left the embeddings of all images, readable."""
    if not exists(f"{work}/{EMBEDDINGS_FILE}"):  # written last
        return False
    for split, name in (("train", EMBEDDINGS_FILE), ("validation", VALIDATION_FILE)):
        try:
            there = read_embeddings(work, name).num_rows
        except DamagedError:
            return False
        if there != count_rows(real, split_files(real, split)):
            return False
    return True


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_clustering`."""
    real = work.path("ingest")
    return run_clustering(work.config, real, work.groups, work.folder, work.progress)
