"""What guidance terms learnt of a run's real images, kept beside the images that it steers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from raysynth.errors import StageError
from raysynth.storage.files import open_storage, write_atomic
from raysynth.synthesis.guidance import Fit, Fitted, Guide

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
    tensors = {
        f"{name}/{key}": value.contiguous()
        for name, fit in fits.items()
        for key, value in fit.tensors.items()
    }
    write_atomic(path, safetensors.torch.save(tensors))


def read(path: str, names: Sequence[str]) -> Fits:
    """What `keep` wrote, of these terms; raises StageError if it is not there or another's."""
    storage, name = open_storage(path)
    try:
        tensors = safetensors.torch.load(storage.cat_file(name))
    except (FileNotFoundError, safetensors.SafetensorError) as error:
        raise StageError(
            f"synthesis: {path} cannot be read ({type(error).__name__}); expected what guidance "
            "learnt of the real images. Fix: run again with the stage's `.partial` folder removed"
        ) from error
    found: dict[str, dict[str, Tensor]] = {term: {} for term in names}
    for key, value in tensors.items():
        term, _, what = key.partition("/")
        if term in found:
            found[term][what] = value
    return found
