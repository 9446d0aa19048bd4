"""Nearest training images: of any group, in both orientations, whitened."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysynth.clustering import neighbours
from raysynth.clustering.embed import column_vectors, vectors_column
from raysynth.clustering.neighbours import Neighbours, real_neighbours
from raysynth.groups.groups import Groups

GROUPS = Groups(("a", "b"), ("x", "y"), ("a", "b"), ("x", "y"))
CPU = torch.device("cpu")
WIDTH = 12


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def images(count: int, seed: int, shared: float = 8.0) -> np.ndarray:
    """Vectors as an encoder's of one class: a large common part, small parts of their own."""
    rng = np.random.default_rng(seed)
    return unit(shared * np.eye(WIDTH)[0] + rng.standard_normal((count, WIDTH)))


def table(vectors: np.ndarray, group: np.ndarray, name: str = "real") -> pa.Table:
    columns = {
        "id": [f"{name}-{n}" for n in range(len(group))],
        "group": pa.array(group, pa.int32()),
        "embedding": vectors_column(vectors),
        "mirrored": vectors_column(vectors[:, ::-1].copy()),
    }
    return pa.table(columns)


def neighbours_of(training: pa.Table, validation: pa.Table | None = None) -> Neighbours:
    return Neighbours(training, validation or training, GROUPS, CPU)


def test_each_image_finds_itself_whatever_its_group_looks_like(monkeypatch):
    """A model may speak for a group whose images it never saw, and copy those that it did."""
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    group = np.arange(60, dtype=np.int32) % 4
    vectors = unit(images(60, 0) + 3 * np.eye(WIDTH)[1 + group])
    search = neighbours_of(table(vectors, group))
    ids, similarity = search(vectors)
    assert ids.tolist() == [f"real-{n}" for n in range(60)]
    assert np.allclose(similarity, 1, atol=1e-5)


def test_groups_without_training_images_are_passed_over():
    vectors, group = images(40, 15), np.repeat(np.array([0, 3], np.int32), 20)
    validation = table(images(40, 16), np.arange(40, dtype=np.int32) % 4, "validation")
    ids, similarity = neighbours_of(table(vectors, group), validation)(vectors)
    assert ids.tolist() == [f"real-{n}" for n in range(40)]
    assert np.allclose(similarity, 1, atol=1e-5)


def test_mirrored_copies_are_found():
    vectors, group = images(80, 1), np.repeat(np.arange(4, dtype=np.int32), 20)
    training = table(vectors, group)
    ids, similarity = neighbours_of(training)(column_vectors(training["mirrored"])[:5])
    assert ids.tolist() == [f"real-{n}" for n in range(5)] and np.allclose(similarity, 1, atol=1e-5)


def test_whitening_tells_images_apart_that_raw_cosines_do_not():
    real, others = images(300, 3), images(100, 4)
    group = np.arange(300, dtype=np.int32) % 4
    copies = unit(real[:50] + 0.01 * np.random.default_rng(5).standard_normal((50, WIDTH)))
    raw_copy = (copies @ real.T).max(1)
    raw_other = (others @ real.T).max(1)
    assert raw_other.min() > 0.85  # of anything, the raw cosine says that it is similar
    search = neighbours_of(table(real, group))
    ids, copy = search(copies)
    assert ids.tolist() == [f"real-{n}" for n in range(50)]
    _, other = search(others)
    assert copy.min() > np.quantile(other, 0.99) and copy.min() - other.mean() > 2 * (
        raw_copy.min() - raw_other.mean()
    )


@pytest.mark.parametrize("count", [3, 8, 40])
def test_few_training_images_do_not_make_every_other_one_a_copy(count):
    """Validation images, unlike training images, are as near as anything that is no copy."""
    group = np.array([0] * count + [1, 2, 3], np.int32)
    training = table(np.concatenate([images(count, 6), images(3, 7)]), group)
    validation = table(images(203, 8), np.array([0] * 200 + [1, 2, 3], np.int32), "validation")
    found = real_neighbours(training, validation, GROUPS, seed=0).slice(0, 200)
    limit = np.quantile(found["similarity"].to_numpy(), 0.99)
    search = neighbours_of(training, validation)
    _, similarity = search(images(200, 9))
    assert (similarity > limit).mean() < 0.05
    assert found["id"].to_pylist() == [f"validation-{n}" for n in range(200)]


def test_a_sample_of_many_validation_images_is_enough(monkeypatch):
    monkeypatch.setattr(neighbours, "SAMPLE", 20)
    monkeypatch.setattr(neighbours, "BATCH", 8)
    group = np.arange(60, dtype=np.int32) % 4
    training, validation = (table(images(60, seed), group) for seed in (10, 11))
    found = real_neighbours(training, validation, GROUPS, seed=0)
    assert np.bincount(found["group"].to_numpy()).tolist() == [15] * 4
    monkeypatch.setattr(neighbours, "SAMPLE", 5)
    found = real_neighbours(training, validation, GROUPS, seed=0)
    assert np.bincount(found["group"].to_numpy()).tolist() == [5] * 4
    assert found.equals(real_neighbours(training, validation, GROUPS, seed=0))


def test_copies_of_the_only_image_of_a_group_are_found():
    vectors = np.concatenate([images(90, 12), images(1, 13) + 2 * np.eye(WIDTH)[1]])
    group = np.array([0, 2, 3] * 30 + [1], np.int32)
    others = unit(images(30, 14) + 2 * np.eye(WIDTH)[1])
    validation = table(others, np.ones(30, np.int32), "validation")
    search = neighbours_of(table(unit(vectors), group), validation)
    ids, similarity = search(unit(vectors[-1:]))
    assert ids.tolist() == ["real-90"] and similarity[0] > 0.999
    _, honest = search(others)
    assert honest.max() < 0.95
