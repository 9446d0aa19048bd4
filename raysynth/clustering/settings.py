"""The knobs of `clustering`."""

from __future__ import annotations

from typing import Literal

from raysynth.knobs import Count, Named, Place, Section, knob


class ClusteringConfig(Section):
    """k-means per group in an embedding space, CLIP's or another encoder's."""

    k: Count | Literal["silhouette"] | dict[str | int, Count] = knob(
        "silhouette",
        "Clusters per group; silhouette: the k <= max_k of the best one; or a mapping of groups, "
        "by name or index, to numbers (groups not named: silhouette).",
    )
    encoder: Place = knob(
        "clip",
        "Whose space clusters and copies are found in: `clip` (base.clip), `efficientnet_lite0` "
        "(needs raysynth[imagenet]), or a folder or hub id of a transformers vision model.",
    )
    encoder_revision: Named | None = knob(
        None, "Hub revision of `encoder`, as base.revision.", neutral=None
    )
    max_k: Count = knob(3, "Most clusters per group when k is chosen.")
    min_size: Count = knob(20, "Images; smaller clusters merge into the nearest one.")
    batch_size: Count = knob(256, "Images embedded at once.", width=True)
    actors: Count = knob(2, "Embedding actors in parallel.", width=True)
