"""The clustering stage: embeddings, clusters and centroids as three small tables."""

from __future__ import annotations

from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from raysynth.clustering.embed import column_vectors, embed_training_images, vectors_column
from raysynth.clustering.kmeans import Clustering, check_cluster_counts, cluster_group
from raysynth.config import Config
from raysynth.groups import Groups, require_every_group
from raysynth.progress import Progress
from raysynth.tables import read_table, write_table

CLUSTERS = pa.schema([("id", pa.string()), ("group", pa.int32()), ("cluster", pa.int32())])
CENTROIDS = pa.schema([("group", pa.int32()), ("embedding", pa.list_(pa.float32()))])


def run_clustering(
    config: Config, real: str, groups: Groups, work: str, progress: Progress
) -> dict[str, Any]:
    """Embed the training images, cluster every group.

    Writes to `work` embeddings.parquet (id, group, embedding), clusters.parquet (id, group,
    cluster) and centroids.parquet (group, embedding: the group's mean, renormalised). Embeddings
    that an earlier, cut-off attempt completed are used again.

    Returns
    -------
    Facts: rows, `sizes` {group name: [images per cluster]}, `silhouettes` {group name: {k: score}}.

    Raises
    ------
    DataError
        If a group has no image, or fewer than `clustering.k`.
    """
    table = _embeddings(config, real, work, progress)
    group = table["group"].to_numpy()
    vectors = column_vectors(table["embedding"])
    counts = np.bincount(group, minlength=groups.count)
    require_every_group(counts, groups, "train")
    check_cluster_counts(counts, groups, config.clustering, config.finetune.min_images)

    labels = np.empty(len(group), np.int32)
    centroids = np.empty((groups.count, vectors.shape[1]), np.float32)
    found: dict[str, Clustering] = {}
    for g in range(groups.count):
        progress.update("groups clustered", g, groups.count)
        rows = group == g
        found[groups.name(g)] = cluster_group(vectors[rows], config.clustering, config.seed, g)
        labels[rows] = found[groups.name(g)].labels
        mean = vectors[rows].mean(axis=0)
        centroids[g] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    cluster_table = pa.table([table["id"], table["group"], labels], schema=CLUSTERS)
    write_table(cluster_table, f"{work}/clusters.parquet")
    numbers = np.arange(groups.count, dtype=np.int32)
    centroid_table = pa.table([numbers, vectors_column(centroids)], schema=CENTROIDS)
    write_table(centroid_table, f"{work}/centroids.parquet")
    sizes = {name: clustering.sizes for name, clustering in found.items()}
    progress.say("  clusters: " + "; ".join(f"{name} {sizes[name]}" for name in sizes))
    return {
        "rows": table.num_rows,
        "sizes": sizes,
        "silhouettes": {
            name: {str(k): round(score, 4) for k, score in clustering.silhouettes.items()}
            for name, clustering in found.items()
        },
    }


def _embeddings(config: Config, real: str, work: str, progress: Progress) -> pa.Table:
    path = f"{work}/embeddings.parquet"
    filesystem, name = fsspec.core.url_to_fs(path)
    if filesystem.exists(name):
        return read_table(work, files=[name])
    table = embed_training_images(config, real, progress)
    write_table(table, path)
    return table
