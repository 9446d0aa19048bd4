"""What is refused of clustering before Ray starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from raysynth.clustering.kmeans import check_cluster_counts
from raysynth.groups.groups import Groups
from raysynth.models.sources import check_clip, check_encoder


def check(config: Any) -> None:
    """Refuse a CLIP or an encoder that is not what it should be; ModelError."""
    check_clip(config.base)
    check_encoder(config.clustering.encoder)


def check_groups(config: Any, groups: Groups, counts: np.ndarray) -> None:
    """Refuse numbers of clusters that the groups' images cannot fill; `counts`: [G].

    Of groups below `finetune.min_images`, which get no model, any number is one cluster.
    """
    check_cluster_counts(counts, groups, config.clustering, config.finetune.min_images)
