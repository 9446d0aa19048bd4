"""What guidance terms learnt of a run's real images, kept beside the images that it steers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from raysynth.synthesis.guidance import Fit, Fitted, Guide
from raysynth.synthesis.kept import keep_tensors, read_tensors

Fits = Mapping[str, Mapping[str, Tensor]]
"""Name of a term -> what it learnt."""


def fits_of(
    guide: Guide, latents: Tensor, group: np.ndarray, groups: int, seed: int
) -> dict[str, Fit]:
    """What the terms of a guide learn of [N, C, H, W] latents and their [N] groups."""
    found = {}
    for term in guide.fitted:
        assert isinstance(term.guidance, Fitted)
        found[term.name] = term.guidance.fit(latents, group, groups, seed, term.knobs)
    return found


def keep(fits: Mapping[str, Fit], path: str) -> None:
    """Write what was learnt to a file or URI, whole."""
    each = ((name, key, v) for name, fit in fits.items() for key, v in fit.tensors.items())
    keep_tensors({f"{name}/{key}": value for name, key, value in each}, path)


def read(path: str, names: Sequence[str]) -> Fits:
    """What `keep` wrote, of these terms; raises StageError if it is not there or another's."""
    found: dict[str, dict[str, Tensor]] = {term: {} for term in names}
    for key, value in read_tensors(path, "what guidance learnt of the real images").items():
        term, _, what = key.partition("/")
        if term in found:
            found[term][what] = value
    return found
