"""What a control is: an embedding that the base model already has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.config.config import Config
from raysynth.networks.images import ImageSet
from raysynth.references.settings import CONTROLS as PARTS
from raysynth.registry import Registry

Embedder = Callable[[ImageSet], NDArray[np.float32]]


@dataclass(frozen=True)
class Control:
    """A row that isolates what the base model knows by itself; the `PART` of a file in `controls/`.

    A group-balanced head on its embedding is tuned and measured; nothing is generated.

    `title`: what tables call it. `load`: (configuration, side of the images in pixels) -> images to
    embeddings [N, D]. `uses_clip`: the embedding is that of `base.clip`, which then decides the
    row.
    """

    title: str
    source: str
    load: Callable[[Config, int], Embedder]
    uses_clip: bool = False

    def budget(self, config: Config) -> dict[str, Any]:
        """What validation chose among; no encoder is trained."""
        heads = len(config.references.head_weight_decays)
        return {"trainings": 0, "stopping_points": 1, "heads_each": heads}


CONTROLS: Registry[Control] = PARTS
