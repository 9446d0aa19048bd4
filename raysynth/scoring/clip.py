"""The CLIP-Score of Basu et al. (arXiv 2511.08711), as a formula."""

from __future__ import annotations

import numpy as np

PAPER_ALPHA = 0.5


def combine(label: np.ndarray, centroid: np.ndarray, alpha: float) -> np.ndarray:
    """alpha * CLIP-Label + (1 - alpha) * CLIP-Centroid, raw cosines as in the paper."""
    return (alpha * label + (1 - alpha) * centroid).astype(np.float32)
