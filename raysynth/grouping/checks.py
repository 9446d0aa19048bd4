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
    """Refuse classes too small for the method; `counts`: [G] training images; DataError."""
    chosen = config.grouping.method
    of_label = counts.reshape(len(groups.label_names), -1).sum(axis=1)
    GROUPING[chosen.name].check_labels(chosen.knobs(GROUPING), groups, of_label)
