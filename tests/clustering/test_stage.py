"""The clustering stage on a real Ray and a real (random) CLIP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysynth.clustering import run_clustering
from raysynth.clustering.embed import column_vectors
from raysynth.config import Config
from raysynth.errors import DataError
from raysynth.groups import Groups
from raysynth.models.loading import load_clip
from raysynth.progress import Progress
from raysynth.tables import REAL, encode_png, read_table, with_groups, write_table
from tests.synthesis.random_models import write_clip

GROUPS = Groups(("a", "b", "c"), ("x", "y"), ("a", "b", "c"), ("x", "y"))
PER_GROUP = 12


def picture(number: int) -> np.ndarray:
    """A picture of its group's colour; every fifth is not square, as in a folder of photographs."""
    rng = np.random.default_rng(number)
    color = np.random.default_rng(number % 6 + 100).integers(0, 255, 3)
    shape = (40, 32, 3) if number % 5 == 0 else (32, 32, 3)
    return (color * 0.7 + rng.integers(0, 70, shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real table of 3 x 2 groups in two training files, and a test file that must not be read."""
    folder = tmp_path_factory.mktemp("real")
    count = PER_GROUP * 6
    rows = [
        {
            "id": f"image-{n:03d}",
            "image": {"bytes": encode_png(picture(n)), "path": None},
            "label": n % 6 // 2,
            "attribute": n % 2,
            "group": n % 6,
            "split": "train",
        }
        for n in range(count)
    ]
    schema = with_groups(REAL, GROUPS)
    for number, part in enumerate((rows[:50], rows[50:])):
        table = pa.Table.from_pylist(part, schema=schema)
        write_table(table, f"{folder}/train-{number:05d}.parquet")
    write_table(pa.Table.from_pylist(rows[:3], schema=schema), f"{folder}/test-00000.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def make_config(clip: Path, **clustering) -> Config:
    values = {"batch_size": 16, "actors": 2, "min_size": 2, **clustering}
    return Config.model_validate(
        {"base": {"clip": str(clip), "dtype": "float32"}, "clustering": values}
    )


def test_embeddings_clusters_and_centroids(ray_local, real, clip_folder, tmp_path):
    config = make_config(clip_folder, k=2)
    facts = run_clustering(config, real, GROUPS, str(tmp_path), Progress())
    table = read_table(str(tmp_path), files=[f"{tmp_path}/embeddings.parquet"])
    assert table["id"].to_pylist() == [f"image-{n:03d}" for n in range(72)]
    vectors = column_vectors(table["embedding"])
    alone = np.concatenate([load_clip(config.base).images(picture(n)[None]) for n in (0, 1, 71)])
    assert np.allclose(vectors[[0, 1, 71]], alone, atol=1e-5)

    clusters = read_table(str(tmp_path), files=[f"{tmp_path}/clusters.parquet"])
    assert clusters["id"].equals(table["id"])
    group, cluster = clusters["group"].to_numpy(), clusters["cluster"].to_numpy()
    assert facts["rows"] == 72
    assert facts["sizes"] == {
        GROUPS.name(g): np.bincount(cluster[group == g]).tolist() for g in range(6)
    }
    assert {len(sizes) for sizes in facts["sizes"].values()} <= {1, 2}

    centroids = read_table(str(tmp_path), files=[f"{tmp_path}/centroids.parquet"])
    mean = vectors[group == 4].mean(axis=0)
    row = column_vectors(centroids["embedding"])[4]
    assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-6)

    again = tmp_path / "again"
    again.mkdir()
    # Embeddings that are there are not computed again: a CLIP that does not exist is not missed.
    (again / "embeddings.parquet").write_bytes((tmp_path / "embeddings.parquet").read_bytes())
    lost = make_config(Path("/no/such/clip"), k=2)
    assert run_clustering(lost, real, GROUPS, str(again), Progress()) == facts
    for name in ("clusters", "centroids"):
        first, second = (p / f"{name}.parquet" for p in (tmp_path, again))
        assert first.read_bytes() == second.read_bytes()

    with pytest.raises(DataError, match=r"clustering\.k=13: fewer training images than clusters"):
        run_clustering(make_config(clip_folder, k=13), real, GROUPS, str(again), Progress())


def test_a_table_without_training_files_is_refused(clip_folder, tmp_path):
    with pytest.raises(DataError, match=r"no train-\*\.parquet file.*Fix"):
        run_clustering(make_config(clip_folder), str(tmp_path), GROUPS, str(tmp_path), Progress())
