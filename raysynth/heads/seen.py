"""What heads see of a snapshot of the encoder, and what a fit returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # head objectives are named by configurations, which wait for none of these
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from raysynth.networks.images import Data
    from raysynth.networks.linear import Head


@dataclass(frozen=True)
class Features:
    """What an encoder makes of the real images, float32: all that heads are fitted and judged on.

    train [N, D], None where no head is refitted; validation [M, D]; logits [M, K] of the head that
    was trained along, on validation; earlier: the same logits at earlier steps; synthetic: rows of
    the synthetic images [S] that heads are fitted to as well, and their features [S, D].
    """

    train: NDArray[np.float32] | None
    validation: NDArray[np.float32]
    logits: NDArray[np.float32]
    earlier: tuple[tuple[int, NDArray[np.float32]], ...] = ()
    synthetic: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Seen:
    """A snapshot of the encoder after `step` steps, as its heads see it; `seed`: of the training.

    `device`: where heads are fitted; `head`: the one that was trained along, if its weights are
    known.
    """

    features: Features
    data: Data
    device: torch.device
    head: Head | None = None
    step: int = 0
    seed: int = 0

    @property
    def classes(self) -> int:
        """Number of labels K."""
        return len(self.data.groups.label_names)


@dataclass(frozen=True)
class Fitted:
    """A head, its predictions on validation [M], and the rows it may be judged by (None: all).

    `head`: None for the one that was trained along. `chosen`: what its fit tuned by itself.
    """

    head: Head | None
    predicted: NDArray[np.int64]
    judged: NDArray[np.int64] | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
