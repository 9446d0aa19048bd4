"""k-means of one group: the choice of k, merging, determinism, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from raysynth.clustering.kmeans import (
    SILHOUETTE_SAMPLE,
    _silhouette,
    check_cluster_counts,
    cluster_group,
    merge_small,
    of_group,
)
from raysynth.clustering.settings import ClusteringConfig
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import Groups


def blobs(sizes: list[int], spread: float = 0.05, seed: int = 0) -> np.ndarray:
    """Clouds around orthogonal directions, L2-normalised."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(np.eye(8)[: len(sizes)], sizes, axis=0)
    x = centers + spread * rng.standard_normal(centers.shape)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("sizes", [[60, 40], [50, 40, 30]])
def test_silhouette_finds_the_clouds(sizes):
    found = cluster_group(blobs(sizes), ClusteringConfig(max_k=4), seed=0, group=1)
    assert found.sizes == sizes  # numbered by falling size
    assert max(found.silhouettes, key=found.silhouettes.__getitem__) == len(sizes)
    assert found.labels[0] == 0 and found.labels[-1] == len(sizes) - 1


def test_a_few_odd_images_do_not_hide_the_clouds():
    """Two clusters are the clouds and the odd ones, which merge; three are the better ones then."""
    found = cluster_group(blobs([30, 30, 3]), ClusteringConfig(max_k=3), seed=0, group=0)
    assert len(found.sizes) == 2 and min(found.sizes) >= 30


def test_a_small_cluster_that_the_sample_misses_is_found():
    """scikit-learn refuses a silhouette of one label: 24 of 66,878 images are in 1 of 2 samples."""
    rng = np.random.default_rng(10)
    clouds = (rng.normal(1, 1e-3, (66_854, 8)), rng.normal(-1, 1e-3, (24, 8)))
    points = np.concatenate(clouds).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = np.repeat([0, 1], (66_854, 24))
    found = [_silhouette(points, labels, state) for state in range(6)]
    assert np.allclose(found, 1, atol=0.01)


def test_a_sampled_silhouette_is_scikit_learns():
    points = blobs([1500, 1500]).astype(np.float32)
    labels = np.repeat([0, 1], 1500)
    drawn = silhouette_score(points, labels, sample_size=SILHOUETTE_SAMPLE, random_state=5)
    assert _silhouette(points, labels, 5) == drawn


def test_k_is_asked_for_by_index_where_names_are_equal():
    groups = Groups(("a", "a/b"), ("b/c", "c"), ("a", "a/b"), ("b/c", "c"))
    asked = [of_group(ClusteringConfig(k={"0": 2, "3": 3}), groups, g).k for g in range(4)]
    assert asked == [2, "silhouette", "silhouette", 3]
    with pytest.raises(ConfigError, match="3: a/b/c"):
        of_group(ClusteringConfig(k={"a/b/c": 2}), groups, 0)


def test_one_cloud_stays_one_cluster():
    cloud = np.random.default_rng(0).standard_normal((400, 64))
    cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)
    found = cluster_group(cloud, ClusteringConfig(max_k=3), seed=0, group=0)
    assert found.sizes == [400]
    assert set(found.silhouettes) == {2, 3} and max(found.silhouettes.values()) < 0.05


def test_a_group_too_small_for_two_clusters_stays_whole():
    found = cluster_group(blobs([12, 12]), ClusteringConfig(min_size=20), seed=0, group=0)
    assert found.sizes == [24] and found.silhouettes == {}


def test_a_fixed_k_is_taken_and_merged():
    assert cluster_group(blobs([30, 30]), ClusteringConfig(k=1), 0, 0).sizes == [60]
    assert len(cluster_group(blobs([90, 90]), ClusteringConfig(k=4), 0, 0).sizes) == 4
    merged = cluster_group(blobs([90, 90, 5]), ClusteringConfig(k=3, min_size=20), 0, 0)
    assert len(merged.sizes) == 2 and sum(merged.sizes) == 185


def test_equal_images_do_not_break_it():
    same = np.tile(blobs([1]), (50, 1))
    assert cluster_group(same, ClusteringConfig(k=3), 0, 0).sizes == [50]
    assert cluster_group(same, ClusteringConfig(), 0, 0).sizes == [50]


def test_small_clusters_merge_into_the_nearest_mean():
    x = np.array([[0.0]] * 5 + [[10.0]] * 4 + [[9.0]] * 2 + [[1.5]])
    labels = np.array([0] * 5 + [1] * 4 + [2] * 2 + [3])
    # 1.5 (one image) joins 0; 9.0 (two images) joins 10.0.
    assert merge_small(x, labels, 3).tolist() == [0] * 5 + [1] * 6 + [0]
    assert merge_small(x, labels, 7).tolist() == [0] * 12
    assert merge_small(x, labels, 1).tolist() == [0] * 5 + [1] * 4 + [2] * 2 + [3]


def test_the_same_seed_and_group_give_the_same_clusters():
    cloud = blobs([200], spread=1.0)
    config = ClusteringConfig(k=3, min_size=1)
    first = cluster_group(cloud, config, seed=3, group=2).labels
    assert np.array_equal(first, cluster_group(cloud, config, seed=3, group=2).labels)


def test_fewer_images_than_clusters_is_refused():
    groups = Groups(("a", "b", "c"), ("x", "y"), ("a", "b", "c"), ("x", "y"))
    counts = [30, 4, 30, 30, 2, 30]
    message = r"clustering\.k=5: .*a/y: 4 for 5, c/x: 2 for 5; .*Fix: clustering\.k=2,"
    with pytest.raises(DataError, match=message):
        check_cluster_counts(counts, groups, ClusteringConfig(k=5), 1)
    check_cluster_counts(counts, groups, ClusteringConfig(k=2), 1)
    check_cluster_counts(counts, groups, ClusteringConfig(), 1)
    check_cluster_counts(counts, groups, ClusteringConfig(k=5), min_images=8)


def test_a_number_for_each_group():
    groups = Groups(("a", "b"), ("x", "y"), ("a", "b"), ("x", "y"))
    config = ClusteringConfig(k={"a/y": 3, 2: 1}, min_size=2)
    asked = [of_group(config, groups, g).k for g in range(4)]
    assert asked == ["silhouette", 3, 1, "silhouette"]
    restored = ClusteringConfig.model_validate_json(config.model_dump_json())  # keys become text
    assert [of_group(restored, groups, g).k for g in range(4)] == asked
    assert len(cluster_group(blobs([30, 30]), of_group(config, groups, 1), 0, 1).sizes) == 3
    assert of_group(ClusteringConfig(k=2), groups, 3).k == 2
    with pytest.raises(DataError, match=r"a/y: 2 for 3; .*Fix: clustering\.k=\{a/y: 2\}"):
        check_cluster_counts([9, 2, 9, 9], groups, config, 1)
    check_cluster_counts([9, 3, 9, 9], groups, config, 1)


@pytest.mark.parametrize("k", [{"a/z": 2}, {7: 2}, {"a/x": 2, 0: 3}])
def test_a_group_that_does_not_exist_or_twice_is_refused(k):
    groups = Groups(("a", "b"), ("x", "y"), ("a", "b"), ("x", "y"))
    with pytest.raises(ConfigError, match=r"clustering\.k: got .*a/x \(0\), a/y \(1\).*Fix"):
        check_cluster_counts([9] * 4, groups, ClusteringConfig(k=k), 1)


def test_groups_too_small_for_a_model_are_one_cluster():
    found = cluster_group(blobs([2]), ClusteringConfig(k=3, min_size=1), seed=0, group=0)
    assert found.sizes == [2]
