"""Cosines of CLIP to the group's prompt and to the mean of its real images, weighed by `alpha`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raysynth.selection.rule import Score
from raysynth.selection.settings import SelectionConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _of(columns: Mapping[str, NDArray[Any]], config: SelectionConfig) -> NDArray[Any]:
    from raysynth.scoring.clip import combine

    return combine(columns["clip_label"], columns["clip_centroid"], config.alpha)


PART = Score(
    "CLIP-Score",
    "Basu et al. 2026 (arXiv 2511.08711)",
    "CLIP score",
    ("clip_label", "clip_centroid"),
    _of,
    cosine=True,
)
