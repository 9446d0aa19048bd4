"""The clustering stage on a real Ray and a real (random) CLIP, and on another vision encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysynth.clustering import batches, embed
from raysynth.clustering.embed import (
    ImageEmbedder,
    column_vectors,
    encoded,
    read_centroids,
    read_embeddings,
)
from raysynth.clustering.kmeans import cluster_group
from raysynth.clustering.stage import _embedded, run_clustering
from raysynth.config.config import Config
from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.models import clip
from raysynth.models.clip import load_clip
from raysynth.models.encoder import load_encoder
from raysynth.progress import Progress
from raysynth.storage.tables import (
    IMAGE,
    REAL,
    decode_images,
    encode_png,
    read_table,
    with_groups,
    write_table,
)
from tests.synthesis.random_models import write_clip, write_encoder

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
    """A real table of 3 x 2 groups: two training files, validation, a test that is not read."""
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
    others = [
        row
        | {"id": f"other-{n:03d}", "image": rows[(n + 6) % count]["image"], "split": "validation"}
        for n, row in enumerate(rows[:18])
    ]
    others = pa.Table.from_pylist(others, schema=schema)
    write_table(others, f"{folder}/validation-00000.parquet")
    write_table(others.slice(0, 3), f"{folder}/test-00000.parquet")
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

    neighbours = read_table(str(tmp_path), files=[f"{tmp_path}/neighbours.parquet"]).to_pandas()
    # Validation shows other images than training: those of row n + 6, which are in the same class.
    assert dict(zip(neighbours["id"], neighbours["nearest"], strict=True)) == {
        f"other-{n:03d}": f"image-{n + 6:03d}" for n in range(18)
    }
    assert (neighbours["similarity"] > 0.99).all()
    mirrored = load_clip(config.base).images(picture(1)[None, :, ::-1])
    assert np.allclose(column_vectors(table["mirrored"])[1], mirrored[0], atol=1e-5)

    again = tmp_path / "again"
    again.mkdir()
    # Embeddings that are there are not computed again: a CLIP that does not exist is not missed.
    for name in ("embeddings", "validation"):
        (again / f"{name}.parquet").write_bytes((tmp_path / f"{name}.parquet").read_bytes())
    lost = make_config(Path("/no/such/clip"), k=2)
    assert run_clustering(lost, real, GROUPS, str(again), Progress()) == facts
    for name in ("clusters", "centroids", "neighbours"):
        first, second = (p / f"{name}.parquet" for p in (tmp_path, again))
        assert first.read_bytes() == second.read_bytes()

    with pytest.raises(DataError, match=r"clustering\.k=13: fewer training images than clusters"):
        run_clustering(make_config(clip_folder, k=13), real, GROUPS, str(again), Progress())


def test_embeddings_of_a_cut_off_attempt_are_of_all_images_or_none(real, tmp_path):
    assert not _embedded(str(tmp_path), real)
    counts = {"embeddings": 72, "validation": 18}
    for name, count in counts.items():
        write_table(pa.table({"id": list(range(count))}), f"{tmp_path}/{name}.parquet")
    assert _embedded(str(tmp_path), real)
    for name, count in counts.items():
        file = tmp_path / f"{name}.parquet"
        whole = file.read_bytes()
        for left in (b"", whole[:-9]):
            file.write_bytes(left)
            assert not _embedded(str(tmp_path), real), "cut off"
        write_table(pa.table({"id": list(range(count - 1))}), str(file))
        assert not _embedded(str(tmp_path), real), "of fewer images"
        file.write_bytes(whole)


def test_a_table_without_training_files_is_refused(clip_folder, tmp_path):
    with pytest.raises(DataError, match=r"no train-\*\.parquet file.*Fix"):
        run_clustering(make_config(clip_folder), str(tmp_path), GROUPS, str(tmp_path), Progress())


@pytest.mark.parametrize("kind", ["clip", "dinov2"])
def test_a_batch_is_embedded_bit_for_bit_however_few_images_are_decoded_at_once(
    clip_folder, tmp_path, monkeypatch, kind
):
    """Large photographs one by one: the models still get the whole batch."""
    encoder = str(write_encoder(tmp_path / kind, kind)) if kind != "clip" else kind
    config = make_config(clip_folder, encoder=encoder)
    embedder = ImageEmbedder(config.clustering, config.base, cpus=1)
    images = [{"bytes": encode_png(picture(n)), "path": None} for n in range(24)]
    names = {name: [str(n) for n in range(24)] for name in ("id", "split")}
    batch = pa.table(names | {"group": range(24), "image": pa.array(images, IMAGE)})
    whole = embedder(batch)
    square = np.stack([picture(n) for n in range(24) if n % 5])  # models are given one size
    at_once = embedder.clip.images(square)
    rows = [n for n in range(24) if n % 5]
    assert np.array_equal(column_vectors(whole["embedding"])[rows], at_once)
    decoded = []
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 3 * 32 * 32)
    monkeypatch.setattr(clip, "PIXELS_AT_ONCE", 32 * 32)
    monkeypatch.setattr(
        embed, "decode_images", lambda column: decoded.append(len(column)) or decode_images(column)
    )
    assert embedder(batch).equals(whole)
    assert sum(decoded) == 24 and max(decoded) == 3


def test_batches_are_bounded_by_bytes_and_pixels():
    assert batches.rows_at_once(256, 2**20) == 256  # what fits is as it was
    assert batches.rows_at_once(256, 2**25) == 32 and batches.rows_at_once(256, 2**40) == 1
    assert batches.images_at_once(4000, 3000) == 1 and batches.images_at_once(64, 64) == 1024


def test_clip_sees_its_own_size_of_any_image(clip_folder):
    """55 * (32 / 55) is below 32: rounded down, a pixel was missing and nothing was seen."""
    clip = load_clip(make_config(clip_folder).base)
    short = [side for side in range(1, 400) if int(side * (clip.size / side)) < clip.size]
    assert short
    for side in short[:5]:
        assert clip.prepare(np.zeros((1, side, 2 * side, 3), np.uint8)).shape[2:] == (32, 32)


@pytest.mark.slow
def test_another_encoder_clusters_and_clip_scores(ray_local, real, clip_folder, tmp_path):
    """Clusters and neighbours in the encoder's space; the centroids stay in CLIP's."""
    encoder = write_encoder(tmp_path / "dino", "dinov2")
    config = make_config(clip_folder, k=2, encoder=str(encoder), actors=1)
    work = tmp_path / "work"
    run_clustering(config, real, GROUPS, str(work), Progress())
    table = read_embeddings(str(work))
    assert table.column_names == ["id", "group", "embedding", "mirrored", "encoded"]
    model = load_encoder(str(encoder), config.base)
    assert np.allclose(encoded(table)[7], model.images(picture(7)[None])[0], atol=1e-5)
    found = of_rows(config, table, encoded(table))
    clusters = read_table(str(work), files=[f"{work}/clusters.parquet"])["cluster"].to_numpy()
    assert np.array_equal(clusters, found)
    assert read_centroids(str(work)).shape == (6, 16)


def of_rows(config: Config, table: pa.Table, vectors: np.ndarray) -> np.ndarray:
    """Clusters of every row by hand."""
    group, labels = table["group"].to_numpy(), np.empty(table.num_rows, np.int32)
    for g in range(GROUPS.count):
        rows = group == g
        labels[rows] = cluster_group(vectors[rows], config.clustering, config.seed, g).labels
    return labels
