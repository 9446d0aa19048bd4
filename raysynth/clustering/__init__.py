"""Embeddings of the real images, k-means per group, the choice of k."""
