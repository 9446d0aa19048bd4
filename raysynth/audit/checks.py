"""What an audit refuses before Ray starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from raysynth.audit.settings import AUDITS
from raysynth.groups.groups import Groups


def check(config: Any) -> None:
    """Refuse what the chosen audit cannot work with; ConfigError."""
    chosen = config.audit.method
    AUDITS[chosen.name].check(config, chosen.knobs(AUDITS))


def check_groups(config: Any, groups: Groups, counts: np.ndarray) -> None:
    """Refuse groups that it cannot tell apart; `counts`: [G] training images; ConfigError."""
    chosen = config.audit.method
    AUDITS[chosen.name].check_groups(config, chosen.knobs(AUDITS), groups, counts)
