"""Room 2: CLIP embeddings of the real images, k-means per group, the choice of k."""

from raysynth.clustering.kmeans import check_cluster_counts
from raysynth.clustering.stage import run_clustering

__all__ = ["check_cluster_counts", "run_clustering"]
