"""CLIP's cosine between an image and its own prompt.

The CLIPScore of Hessel et al. 2021 (arXiv 2104.08718, eq. 1) without its weight of 2.5 and its cut
at 0, which change no order; prompts longer than CLIP reads are cut.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raysynth.knobs import Section
from raysynth.scoring.scorer import Images, Score, Scoring


class ClipPrompt:
    """See `raysynth.scoring.scorer.Scorer`."""

    title = "CLIP on the image's own prompt"
    source = "Hessel et al. 2021 (arXiv 2104.08718)"
    Knobs = Section
    of_prompts = True
    columns = pa.schema([("clip_prompt", pa.float32())])

    def open(self, scoring: Scoring, knobs: Section) -> Score:
        """Load CLIP; prompts are embedded as they come."""
        clip = scoring.clip

        def score(images: Images, specs: pa.Table) -> dict[str, pa.Array]:
            distinct = specs["prompt"].unique().to_pylist()
            place = {prompt: number for number, prompt in enumerate(distinct)}
            texts_SD = clip.texts(distinct)
            own_BD = texts_SD[[place[prompt] for prompt in specs["prompt"].to_pylist()]]
            cosine = np.einsum("bd,bd->b", images.clip, own_BD)
            return {"clip_prompt": pa.array(cosine, pa.float32())}

        return score


PART = ClipPrompt()
