"""What a control is: an embedding that the base, or another model, already has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from raysynth.datasets.settings import DatasetConfig
from raysynth.models.settings import CLIP, BaseConfigSection
from raysynth.references.settings import CONTROLS as PARTS
from raysynth.references.settings import ReferencesConfig
from raysynth.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raysynth.networks.build import Blueprint
    from raysynth.networks.images import ImageSet

Embedder: TypeAlias = "Callable[[ImageSet], NDArray[np.float32]]"


def nothing_needed() -> None:
    """Of controls whose models every installation has."""


def nothing_to_refuse(base: BaseConfigSection, dataset: DatasetConfig) -> None:
    """Of controls that every run can have."""


@dataclass(frozen=True)
class Control:
    """A row that isolates what a model knows by itself; the `PART` of a file in `controls/`.

    A group-balanced head on its embedding is tuned and measured; nothing is generated.

    `title`: what tables call it. `load`: (what networks are made from, side of the images in
    pixels, images embedded at once) -> images to embeddings [N, D]. `uses_clip`: the embedding is
    that of `base.clip`, which then decides the row. `check`: raises ValueError for a base or a data
    set that it cannot do with. `needs`: raises ModelError where its model is not installed.
    `backbone`: the `classifier.backbone` that starts from what it knows; `whose`: who knows it, in
    words. `flops`: of its network for one image, where they are worth planning.
    """

    title: str
    source: str
    load: Callable[[Blueprint, int, int], Embedder]
    uses_clip: bool = False
    check: Callable[[BaseConfigSection, DatasetConfig], None] = nothing_to_refuse
    needs: Callable[[], None] = nothing_needed
    backbone: str = CLIP
    whose: str = "the base model"
    flops: float = 0.0

    def budget(self, config: ReferencesConfig) -> dict[str, Any]:
        """What validation chose among; no encoder is trained."""
        heads = len(config.head_weight_decays)
        return {"trainings": 0, "stopping_points": 1, "heads_each": heads}


CONTROLS: Registry[Control] = PARTS
