"""Embeddings of the real training and validation images, by a pool of Ray Data actors."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from PIL import Image

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.workers import TASK_CPUS, actor_pool
from raysynth.clustering.batches import images_at_once, rows_at_once
from raysynth.clustering.settings import ClusteringConfig
from raysynth.models.settings import CLIP, BaseConfigSection
from raysynth.models.threads import use_threads
from raysynth.progress import Progress
from raysynth.storage.files import open_storage
from raysynth.storage.tables import STORED, count_rows, decode_images, read_table, split_files

if TYPE_CHECKING:
    from torch import Tensor

VECTOR = pa.list_(pa.float32())
MIRRORED = pa.field("mirrored", VECTOR)
EMBEDDINGS = pa.schema(
    [("id", pa.string()), ("group", pa.int32()), ("embedding", VECTOR), MIRRORED]
)
"""`mirrored`: the embedding of the image mirrored left-right, in the space of copies."""
ENCODED = pa.field("encoded", VECTOR)
"""The image in that space, where `clustering.encoder` is not CLIP."""
EMBEDDINGS_FILE, VALIDATION_FILE = "embeddings.parquet", "validation.parquet"
CENTROIDS_FILE, NEIGHBOURS_FILE = "centroids.parquet", "neighbours.parquet"


class ImageEmbedder:
    """One actor: CLIP (and the encoder) in memory, batches of the real table in, embeddings out.

    Of a batch it holds the encoded images, what the models see of them, and as many as they are as
    `batches.PIXELS_AT_ONCE` allows.

    CLIP embeds in any case: the CLIP-Centroid score needs its space, whatever clusters are made in.
    """

    def __init__(self, config: ClusteringConfig, base: BaseConfigSection, cpus: float) -> None:
        """Load the models; threads as a worker has CPUs."""
        from raysynth.models.clip import load_clip  # torch: not in the driver
        from raysynth.models.encoder import load_encoder

        use_threads(cpus)
        name = config.encoder
        self.clip = load_clip(base)
        self.encoder = None if name == CLIP else load_encoder(name, base, config.encoder_revision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """[N] rows of the real table -> split, and the columns of EMBEDDINGS (and ENCODED)."""
        rows_of: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, image in enumerate(batch["image"]):
            rows_of[Image.open(io.BytesIO(image["bytes"].as_py()), formats=STORED).size].append(row)
        # Models crop to a square themselves; images that differ in shape are only not stacked.
        order = np.argsort(np.concatenate(list(rows_of.values())))
        found = [self._embed(batch["image"].take(rows), *size) for size, rows in rows_of.items()]
        columns = {
            name: vectors_column(np.concatenate([some[name] for some in found])[order])
            for name in found[0]
        }
        return pa.table({name: batch[name] for name in ("id", "group", "split")} | columns)

    def _embed(self, images: pa.ChunkedArray, width: int, height: int) -> dict[str, np.ndarray]:
        """Column -> [N, D] of images of one size, which are decoded and reduced by parts."""
        import torch

        space = self.encoder or self.clip
        models = {"embedding": self.clip, MIRRORED.name: space}
        if self.encoder is not None:
            models[ENCODED.name] = self.encoder
        prepared: dict[str, list[Tensor]] = {name: [] for name in models}
        each = images_at_once(width, height)
        for start in range(0, len(images), each):
            pixels = decode_images(images.slice(start, each))
            for name, model in models.items():
                seen = pixels[:, :, ::-1] if name == MIRRORED.name else pixels
                prepared[name].append(model.prepare(seen))
        # All together: of a model, the last bits depend on how many images it is given.
        return {name: model.embed(torch.cat(prepared.pop(name))) for name, model in models.items()}


def vectors_column(vectors: np.ndarray) -> pa.ListArray:
    """[N, D] floats as an Arrow list<float32> column."""
    count, width = vectors.shape
    offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel().astype(np.float32)))


def column_vectors(column: pa.ChunkedArray) -> np.ndarray:
    """An Arrow list<float32> column as [N, D] floats; inverse of `vectors_column`."""
    return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)


def encoded(table: pa.Table) -> np.ndarray:
    """[N, D] vectors of an embeddings table in the space of clusters and of copies."""
    return column_vectors(
        table[ENCODED.name if ENCODED.name in table.column_names else "embedding"]
    )


def read_embeddings(clusters: str, name: str = EMBEDDINGS_FILE) -> pa.Table:
    """The clustering stage's embeddings, below its folder or URI."""
    return read_table(clusters, files=[f"{clusters}/{name}"])


def read_centroids(clusters: str) -> np.ndarray:
    """[G, D] CLIP centroids of the groups, below the clustering stage's folder or URI."""
    table = read_table(clusters, files=[f"{clusters}/{CENTROIDS_FILE}"]).sort_by("group")
    return column_vectors(table["embedding"])


def _bytes_of(files: Sequence[str]) -> int:
    """Size of files on any filesystem."""
    return sum(storage.size(path) for storage, path in map(open_storage, files))


def embed_real_images(
    config: ClusteringConfig,
    base: BaseConfigSection,
    resources: ResourcesConfig,
    real: str,
    progress: Progress,
) -> tuple[pa.Table, pa.Table]:
    """Embeddings of the real table's training and of its validation images.

    Returns
    -------
    Two tables EMBEDDINGS (and ENCODED), sorted by id; vectors are L2-normalised.
    """
    files = [*split_files(real, "train"), *split_files(real, "validation")]
    total = count_rows(real, files)
    rows = rows_at_once(config.batch_size, _bytes_of(files) / max(total, 1))
    dataset = ray.data.read_parquet(
        files,
        columns=["id", "image", "group", "split"],
        num_cpus=TASK_CPUS,
        partitioning=None,  # a run may lie below `split=a`, which is no column
    ).repartition(target_num_rows_per_block=rows)
    # Ordered blocks: which images share a batch must not depend on which file was read first.
    dataset.context.execution_options.preserve_order = True
    embedded = dataset.map_batches(
        ImageEmbedder,
        fn_constructor_args=(config, base, resources.cpus_per_worker),
        batch_size=rows,
        batch_format="pyarrow",
        **actor_pool(resources, config.actors),
    )
    progress.update("loading the encoder, images embedded", 0, total)
    tables, done = [], 0
    for batch in embedded.iter_batches(batch_size=None, batch_format="pyarrow"):
        tables.append(batch)
        done += batch.num_rows
        progress.update("images embedded", done, total)
    return _of_splits(pa.concat_tables(tables).combine_chunks().sort_by("id"))


def _of_splits(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    train, validation = (
        table.filter(pc.equal(table["split"], split)).drop_columns("split")
        for split in ("train", "validation")
    )
    return train, validation
