"""What references need of the data, refused before Ray starts; it is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.networks.checks import check_backbone
from raysynth.references.control import CONTROLS
from raysynth.references.reference import REFERENCES


def check(config: Any) -> None:
    """Refuse a backbone, see `check_backbone`, and controls whose models are not here; ModelError.

    Where only results are read, of a run that another machine made, nobody asks.
    """
    check_backbone(config)
    for name in config.references.controls:
        CONTROLS[name].needs()


def check_halves(names: Sequence[str], counts: NDArray[np.int64], groups: Groups) -> None:
    """Refuse references that are fitted to half of the validation images where a group has one.

    `counts` [G]: validation images. Raises DataError.
    """
    halved = [name for name in names if REFERENCES[name].uses_validation]
    few = [f"{groups.name(g)}: {counts[g]}" for g in range(groups.count) if counts[g] < 2]
    if halved and few:
        raise DataError(
            f"references.names: {', '.join(halved)} are fitted to half of each group's validation "
            f"images and chosen by the other half; got {', '.join(few)}; expected at least 2 of "
            f"each group. Fix: leave {' and '.join(halved)} out of references.names, or add "
            "validation images of these groups"
        )
