"""Room 2: CLIP embeddings of the real images, k-means per group, the choice of k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysynth.clustering.stage import run_clustering

__all__ = ["run_clustering"]


def __getattr__(name: str) -> Any:
    # On demand (PEP 562): what is refused beforehand must not wait for torch and scikit-learn.
    if name != "run_clustering":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raysynth.clustering.stage import run_clustering

    return run_clustering
