"""CLIP score and the Diffusion Classifier's margin, each in units of its spread, added up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raysynth.selection.rule import Score
from raysynth.selection.scores.clip import PART as CLIP
from raysynth.selection.scores.diffusion_classifier import PART as MARGIN
from raysynth.selection.settings import SelectionConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _of(columns: Mapping[str, NDArray[Any]], config: SelectionConfig) -> NDArray[Any]:
    import numpy as np

    parts = (part.of(columns, config) for part in (CLIP, MARGIN))
    # All candidates alike say nothing: their spread is 0, and so is what is divided.
    found: NDArray[Any] = sum((part - part.mean()) / (part.std() or 1.0) for part in parts).astype(
        np.float32
    )
    return found


PART = Score(
    "Both judges",
    "ours",
    "CLIP score and the Diffusion Classifier's margin",
    (*CLIP.columns, *MARGIN.columns),
    _of,
)
