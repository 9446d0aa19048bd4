"""From an image to its nearest training image, through the generating actor's scorer."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raysynth.clustering.embed import vectors_column
from raysynth.models.clip import load_clip
from raysynth.models.encoder import load_encoder
from raysynth.storage.tables import write_table
from raysynth.synthesis.actor import Synthesizer
from raysynth.synthesis.task import Task
from tests.synthesis.conftest import GROUPS
from tests.synthesis.random_models import write_encoder


def test_a_copy_of_a_training_image_names_it(make_config, tmp_path):
    """The encoder's space decides, in either orientation, whatever group the image was made for."""
    encoder = write_encoder(tmp_path / "vit", "vit")
    config = make_config(generator="vanilla", clustering={"encoder": str(encoder)})
    real = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), np.uint8)
    space, group = load_encoder(str(encoder), config.base), np.arange(24, dtype=np.int32) % 4
    columns = {
        "id": [f"real-{n}" for n in range(24)],
        "group": group,
        "embedding": vectors_column(load_clip(config.base).images(real)),
        "mirrored": vectors_column(space.images(real[:, :, ::-1])),
        "encoded": vectors_column(space.images(real)),
    }
    for name in ("embeddings", "validation"):
        write_table(pa.table(columns), f"{tmp_path}/{name}.parquet")
    numbers = pa.array(range(4), pa.int32())
    centroids = pa.table({"group": numbers, "embedding": columns["embedding"].slice(0, 4)})
    write_table(centroids, f"{tmp_path}/centroids.parquet")
    score = Synthesizer(Task.of(config, GROUPS, "", (), str(tmp_path))).sampler.score
    images = np.concatenate([real[:4], real[8:10, :, ::-1]])
    for groups in ([0, 1, 2, 3, 0, 1], [2, 3, 0, 0, 1, 1]):
        found = score(images, pa.table({"group": pa.array(groups, pa.int32())}))
        assert found["nearest"].to_pylist() == [f"real-{n}" for n in (0, 1, 2, 3, 8, 9)]
        assert min(found["nearest_similarity"].to_pylist()) > 0.999
    new = np.random.default_rng(1).integers(0, 255, (2, 32, 32, 3), np.uint8)
    found = score(new, pa.table({"group": pa.array([0, 1], pa.int32())}))
    assert max(found["nearest_similarity"].to_pylist()) < 0.99
