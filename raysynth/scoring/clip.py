"""CLIP scores of generated images (Basu et al., arXiv 2511.08711), nearest training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysynth.models.clip import Clip
from raysynth.models.encoder import Encoder
from raysynth.scoring.neighbours import Neighbours

PAPER_ALPHA = 0.5


@dataclass(frozen=True)
class Scores:
    """[B] each: float32 cosines to the prompt, the centroid and the nearest training image."""

    label: np.ndarray
    centroid: np.ndarray
    nearest: np.ndarray
    """Ids of the nearest training images."""
    nearest_similarity: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """CLIP-Score = alpha * label + (1 - alpha) * centroid with the paper's alpha = 0.5."""
        return combine(self.label, self.centroid, PAPER_ALPHA)


def combine(label: np.ndarray, centroid: np.ndarray, alpha: float) -> np.ndarray:
    """alpha * CLIP-Label + (1 - alpha) * CLIP-Centroid, raw cosines as in the paper."""
    return (alpha * label + (1 - alpha) * centroid).astype(np.float32)


class ClipScorer:
    """Compares images with their group's prompt, with the mean of its real images and with each."""

    def __init__(
        self,
        clip: Clip,
        prompts: list[str],
        centroids: np.ndarray,
        neighbours: Neighbours,
        encoder: Encoder | None = None,
    ) -> None:
        """Prepare the targets.

        Parameters
        ----------
        prompts : one per group, without the rare token (CLIP does not know it).
        centroids : [G, D] L2-normalised mean embedding of each group's real training images.
        neighbours : the training images, in the encoder's space.
        encoder : of that space; None: CLIP.
        """
        self.clip, self.centroids_GD = clip, centroids
        self.prompts_GD = clip.texts(prompts)
        self.neighbours, self.encoder = neighbours, encoder

    def __call__(self, images: np.ndarray, group: np.ndarray) -> Scores:
        """Scores of [B, H, W, 3] uint8 images of groups [B]."""
        images_BD = self.clip.images(images)
        encoded = images_BD if self.encoder is None else self.encoder.images(images)
        nearest, similarity = self.neighbours(encoded)
        return Scores(
            label=np.einsum("bd,bd->b", images_BD, self.prompts_GD[group]),
            centroid=np.einsum("bd,bd->b", images_BD, self.centroids_GD[group]),
            nearest=nearest,
            nearest_similarity=similarity,
        )
