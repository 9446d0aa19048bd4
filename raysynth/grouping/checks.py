"""What a grouping method refuses before Ray starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from raysynth.grouping.settings import GROUPING
from raysynth.groups.groups import Groups


def check(config: Any) -> None:
    """Refuse what the chosen method cannot work with; ConfigError, ModelError."""
    chosen = config.grouping.method
    GROUPING[chosen.name].check(config, chosen.knobs(GROUPING))


def check_groups(config: Any, groups: Groups, counts: np.ndarray) -> None:
    """Refuse images that the method cannot group; `counts`: [K, A + 1], see `Method`; DataError."""
    chosen = config.grouping.method
    GROUPING[chosen.name].check_images(chosen.knobs(GROUPING), groups, counts)
