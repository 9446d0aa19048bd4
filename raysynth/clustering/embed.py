"""CLIP embeddings of the real training images, by a pool of Ray Data actors."""

from __future__ import annotations

import io
from collections import defaultdict

import numpy as np
import pyarrow as pa
import ray
from PIL import Image

from raysynth.clustering.pool import TASK_CPUS, actor_pool
from raysynth.config import BaseConfigSection, Config
from raysynth.errors import DataError
from raysynth.models.device import use_threads
from raysynth.models.loading import load_clip
from raysynth.progress import Progress
from raysynth.tables import decode_images, parquet_files, read_table

EMBEDDINGS = pa.schema(
    [("id", pa.string()), ("group", pa.int32()), ("embedding", pa.list_(pa.float32()))]
)


class ImageEmbedder:
    """One actor: CLIP in memory, batches of the real table in, embeddings out."""

    def __init__(self, base: BaseConfigSection, cpus: float) -> None:
        """`cpus`: what this actor was given."""
        use_threads(cpus)
        self.clip = load_clip(base)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """[N] rows of the real table -> id, group, embedding [N, D]."""
        rows_of: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, image in enumerate(batch["image"]):
            rows_of[Image.open(io.BytesIO(image["bytes"].as_py())).size].append(row)
        # CLIP crops to a square itself; images that differ in shape are only not stacked together.
        parts = [self.clip.images(decode_images(batch["image"].take(r))) for r in rows_of.values()]
        vectors = np.concatenate(parts)[np.argsort(np.concatenate(list(rows_of.values())))]
        return pa.table([batch["id"], batch["group"], vectors_column(vectors)], schema=EMBEDDINGS)


def vectors_column(vectors: np.ndarray) -> pa.ListArray:
    """[N, D] floats as an Arrow list<float32> column."""
    count, width = vectors.shape
    offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel().astype(np.float32)))


def column_vectors(column: pa.ChunkedArray) -> np.ndarray:
    """An Arrow list<float32> column as [N, D] floats; inverse of `vectors_column`."""
    return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)


def training_files(real: str) -> list[str]:
    """Paths or URIs of the real table's training files, in name order."""
    names = [name.rsplit("/", 1)[-1] for name in parquet_files(real)]
    files = [f"{real}/{name}" for name in names if name.startswith("train-")]
    if not files:
        raise DataError(
            f"{real}: no train-*.parquet file; expected the real table that ingest writes. "
            "Fix: run the ingest stage again"
        )
    return files


def embed_training_images(config: Config, real: str, progress: Progress) -> pa.Table:
    """Embeddings of every training image of the real table.

    Returns
    -------
    Table (id: string, group: int32, embedding: list<float32>), sorted by id, L2-normalised.
    """
    files = training_files(real)
    total = read_table(real, ["id"], files).num_rows
    dataset = ray.data.read_parquet(
        files, columns=["id", "image", "group"], num_cpus=TASK_CPUS
    ).repartition(target_num_rows_per_block=config.clustering.batch_size)
    # Ordered blocks: which images share a batch must not depend on which file was read first.
    dataset.context.execution_options.preserve_order = True
    embedded = dataset.map_batches(
        ImageEmbedder,
        fn_constructor_args=(config.base, config.resources.cpus_per_worker),
        batch_size=config.clustering.batch_size,
        batch_format="pyarrow",
        **actor_pool(config.resources, config.clustering.actors),
    )
    progress.update("images embedded", 0, total)
    tables, done = [], 0
    for batch in embedded.iter_batches(batch_size=None, batch_format="pyarrow"):
        tables.append(batch.cast(EMBEDDINGS))
        done += batch.num_rows
        progress.update("images embedded", done, total)
    return pa.concat_tables(tables).combine_chunks().sort_by("id")
