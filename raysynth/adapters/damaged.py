"""Weights of an adapter or a fine-tuned network that cannot be believed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from raysynth.errors import DamagedError
from raysynth.terminal import masked

AGAIN = "delete it, and run again: it is trained again"


def check_finite(weights: Mapping[str, Tensor], path: str) -> None:
    """Raise DamagedError where one of the tensors that were read from `path` holds no number."""
    if broken := sorted(name for name, tensor in weights.items() if not tensor.isfinite().all()):
        raise DamagedError(
            f"{masked(path)}: {len(broken)} of {len(weights)} tensors are not finite, e.g. "
            f"{broken[0]}; expected numbers. Fix: {AGAIN}",
            path,
        )
