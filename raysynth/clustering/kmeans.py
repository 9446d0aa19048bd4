"""k-means of one group's embeddings: the choice of k, the merging of small clusters.

Basu et al. (arXiv 2511.08711, section 1 of their method) cluster each group's CLIP embeddings and
fine-tune one model per cluster; neither their algorithm nor their k is published, so k-means,
the silhouette and every constant here are ours.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysynth.clustering.settings import ClusteringConfig
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import Groups

# The silhouette is undefined for one cluster. A split is believed only if images are, on average,
# closer to their own cluster than to the next one by this share of the distance; below it the
# group is one cloud, and cutting it would only make smaller training sets.
MIN_SILHOUETTE = 0.05
SILHOUETTE_SAMPLE = 2000  # images; the score needs all pairwise distances
LEAST_SAMPLED = 100  # images of a cluster that a sample at random misses
RESTARTS = 4


@dataclass(frozen=True)
class Clustering:
    """Clusters of one group: `labels` [N] int32, numbered from 0 by falling size."""

    labels: np.ndarray
    silhouettes: dict[int, float]

    @property
    def sizes(self) -> list[int]:
        """Images per cluster."""
        return np.bincount(self.labels).tolist()

    @property
    def rounded_silhouettes(self) -> dict[str, float]:
        """The scores as manifests hold them."""
        return {str(k): round(score, 4) for k, score in self.silhouettes.items()}


def of_group(config: ClusteringConfig, groups: Groups, group: int) -> ClusteringConfig:
    """The configuration of one group: `k` is its own number, or silhouette if it is not named.

    Raises
    ------
    ConfigError
        If `clustering.k` names a group that does not exist, or one group twice.
    """
    if not isinstance(config.k, Mapping):
        return config
    numbers = {name: g for g, name in enumerate(groups.names)}
    asked: dict[int, int] = {}
    for key, k in config.k.items():
        number = numbers.get(str(key), int(key) if str(key).isdigit() else -1)
        if number not in numbers.values() or number in asked:
            known = ", ".join(f"{name} ({g})" for name, g in numbers.items())
            raise ConfigError(
                f"clustering.k: got {'a second number for' if number in asked else 'the'} group "
                f"{key!r}; expected each group once, by name or index, of {known}. Fix: e.g. "
                f'clustering.k="{{{groups.names[0]}: 2}}"'
            )
        asked[number] = k
    return config.model_copy(update={"k": asked.get(group, "silhouette")})


def check_cluster_counts(
    counts: Sequence[int] | np.ndarray, groups: Groups, config: ClusteringConfig, min_images: int
) -> None:
    """Refuse groups that hold fewer images than clusters are asked for.

    Groups below `min_images` (`finetune.min_images`) get no model and are one cluster.

    Parameters
    ----------
    counts : [G] training images per group.

    Raises
    ------
    ConfigError
        If `clustering.k` names a group that does not exist.
    DataError
        Naming every such group, what it has and what is needed.
    """
    asked = [of_group(config, groups, g).k for g in range(groups.count)]
    small = {
        g: k for g, k in enumerate(asked) if isinstance(k, int) and min_images <= counts[g] < k
    }
    if small:
        found = ", ".join(f"{groups.name(g)}: {int(counts[g])} for {k}" for g, k in small.items())
        each = isinstance(config.k, Mapping)
        fix = (
            "{" + ", ".join(f"{groups.names[g]}: {int(counts[g])}" for g in small) + "}"
            if each
            else str(min(int(counts[g]) for g in small))
        )
        raise DataError(
            f"clustering.k={config.k}: fewer training images than clusters in group(s) {found}; "
            "expected at least one image per cluster. Fix: clustering.k="
            f"{fix}, clustering.k=silhouette, or a lower dataset.severity"
        )


def most_clusters(config: ClusteringConfig, images: int) -> int:
    """Clusters that a group of this many images can have at most; `config`: with its own `k`."""
    most = config.k if isinstance(config.k, int) else config.max_k
    return max(1, min(most, images // config.min_size))


def cluster_group(
    embeddings: np.ndarray, config: ClusteringConfig, seed: int, group: int
) -> Clustering:
    """k-means of one group's embeddings, small clusters merged.

    With `clustering.k=silhouette` the k in 2..max_k of the best silhouette is taken, that of its
    clusters as merged, and 1 if the group cannot hold two clusters of `min_size` images or no k
    reaches `MIN_SILHOUETTE`.

    Parameters
    ----------
    embeddings : [N, D] float, L2-normalised.
    config : with the group's own `k`, see `of_group`.
    seed, group : the run's seed and the group's index; nothing else decides the outcome.
    """
    state = group_state(seed, group)
    if config.k == "silhouette":
        labels, silhouettes = _best_silhouette(embeddings, config, state)
    else:
        assert isinstance(config.k, int), "of_group chose the group's own"
        k = config.k if len(embeddings) >= config.k else 1
        labels, silhouettes = k_means(embeddings, k, state), {}
    return Clustering(merge_small(embeddings, labels, config.min_size), silhouettes)


def group_state(seed: int, group: int) -> int:
    """scikit-learn's random state (32 bits) of a group."""
    digest = hashlib.blake2b(f"kmeans/{seed}/{group}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def merge_small(embeddings: np.ndarray, labels: np.ndarray, min_size: int) -> np.ndarray:
    """Merge clusters below `min_size` images, smallest first, into the one of the nearest mean.

    Returns [N] int32 labels, renumbered from 0 by falling size (then by first image).
    """
    labels = np.unique(labels, return_inverse=True)[1]
    while True:
        sizes = np.bincount(labels)
        if len(sizes) == 1 or sizes.min() >= min_size:
            return _by_size(labels)
        means = np.stack([embeddings[labels == k].mean(axis=0) for k in range(len(sizes))])
        smallest = int(sizes.argmin())
        distances = np.linalg.norm(means - means[smallest], axis=1)
        distances[smallest] = np.inf
        labels = np.where(labels == smallest, distances.argmin(), labels)
        labels = np.unique(labels, return_inverse=True)[1]


def _best_silhouette(
    embeddings: np.ndarray, config: ClusteringConfig, state: int
) -> tuple[np.ndarray, dict[int, float]]:
    best, score, silhouettes = np.zeros(len(embeddings), np.int64), MIN_SILHOUETTE, {}
    most = min(config.max_k, len(embeddings) // max(1, config.min_size), len(embeddings) - 1)
    for k in range(2, most + 1):
        labels = merge_small(embeddings, k_means(embeddings, k, state), config.min_size)
        if labels.max() < 1:
            continue
        silhouettes[k] = _silhouette(embeddings, labels, state)
        if silhouettes[k] >= score:
            best, score = labels, silhouettes[k]
    return best, silhouettes


def _silhouette(embeddings: np.ndarray, labels: np.ndarray, state: int) -> float:
    """Mean silhouette of at most `SILHOUETTE_SAMPLE` random images.

    Where these are all of one cluster, because the others are small, every cluster gives images of
    its own instead, and counts by its size.
    """
    from sklearn.metrics import silhouette_samples, silhouette_score

    sample = min(SILHOUETTE_SAMPLE, len(embeddings))
    order = np.random.RandomState(state).permutation(len(embeddings))  # scikit-learn's own draw
    if len(np.unique(labels[order[:sample]])) > 1:
        return float(silhouette_score(embeddings, labels, sample_size=sample, random_state=state))
    sizes = np.bincount(labels)
    rows = np.concatenate(
        [
            order[labels[order] == k][: max(LEAST_SAMPLED, sample * size // len(labels))]
            for k, size in enumerate(sizes)
        ]
    )
    each, own = silhouette_samples(embeddings[rows], labels[rows]), labels[rows]
    means = [each[own == k].mean() for k in range(len(sizes))]
    return float(np.average(means, weights=sizes))


def k_means(embeddings: np.ndarray, k: int, state: int) -> np.ndarray:
    """[N] int labels of [N, D] embeddings; `state`: scikit-learn's random state.

    Fewer distinct images than k leave some labels out.
    """
    # On demand: `check_cluster_counts` must not wait a second for scikit-learn.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer distinct images than clusters: the empty ones vanish when labels are renumbered.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(k, n_init=RESTARTS, random_state=state).fit_predict(embeddings)


def _by_size(labels: np.ndarray) -> np.ndarray:
    names, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    rank = np.empty(len(names), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(len(names), dtype=np.int32)
    return rank[np.searchsorted(names, labels)]
