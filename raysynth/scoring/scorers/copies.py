"""The nearest training image and its cosine in a whitened space: what tells copies.

See `raysynth.clustering.neighbours`; from which cosine on an image is a copy, selection says.
"""

from __future__ import annotations

import pyarrow as pa

from raysynth.knobs import Section
from raysynth.scoring.scorer import Images, Score, Scoring


class Copies:
    """See `raysynth.scoring.scorer.Scorer`."""

    title = "Nearest training image"
    source = "whitening as in SSCD, Pizzi et al. 2022 (arXiv 2202.10261)"
    Knobs = Section
    columns = pa.schema([("nearest", pa.string()), ("nearest_similarity", pa.float32())])

    def open(self, scoring: Scoring, knobs: Section) -> Score:
        """Load the encoder, and the training images' embeddings onto CLIP's device."""
        from raysynth.clustering.embed import EMBEDDINGS_FILE, VALIDATION_FILE, read_embeddings
        from raysynth.clustering.neighbours import Neighbours

        training, validation = (
            read_embeddings(scoring.clusters, file) for file in (EMBEDDINGS_FILE, VALIDATION_FILE)
        )
        neighbours = Neighbours(training, validation, scoring.groups, scoring.clip.device)
        _ = scoring.encoder  # now, not in the first batch

        def score(images: Images, specs: pa.Table) -> dict[str, pa.Array]:
            nearest, similarity = neighbours(images.encoded)
            return {
                "nearest": pa.array(nearest, pa.string()),
                "nearest_similarity": pa.array(similarity),
            }

        return score


PART = Copies()
