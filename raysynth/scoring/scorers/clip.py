"""CLIP-Label and CLIP-Centroid: cosines to the group's prompt and to the mean of its real images.

`clip_score` is alpha * label + (1 - alpha) * centroid with the paper's alpha = 0.5. The prompt is
said without the rare token, which CLIP does not know.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raysynth.groups.prompts import spoken
from raysynth.knobs import Section
from raysynth.scoring.clip import PAPER_ALPHA, combine
from raysynth.scoring.scorer import Images, Score, Scoring


class ClipScore:
    """See `raysynth.scoring.scorer.Scorer`."""

    title = "CLIP-Score"
    source = "Basu et al. 2026 (arXiv 2511.08711)"
    Knobs = Section
    columns = pa.schema(
        [
            ("clip_label", pa.float32()),
            ("clip_centroid", pa.float32()),
            ("clip_score", pa.float32()),
        ]
    )

    def open(self, scoring: Scoring, knobs: Section) -> Score:
        """Embed the groups' prompts, and read their centroids."""
        from raysynth.clustering.embed import read_centroids

        groups, prompts = scoring.groups, scoring.prompts
        texts = [spoken(prompts, groups, g, token="") for g in range(groups.count)]
        prompts_GD, centroids_GD = scoring.clip.texts(texts), read_centroids(scoring.clusters)

        def score(images: Images, specs: pa.Table) -> dict[str, pa.Array]:
            group = specs["group"].to_numpy()
            label, centroid = (
                np.einsum("bd,bd->b", images.clip, targets[group])
                for targets in (prompts_GD, centroids_GD)
            )
            return {
                "clip_label": pa.array(label),
                "clip_centroid": pa.array(centroid),
                "clip_score": pa.array(combine(label, centroid, PAPER_ALPHA)),
            }

        return score


PART = ClipScore()
