"""Even timesteps: the levels that diffusers' solver takes by itself, or as even from lower down."""

from __future__ import annotations

import numpy as np

from raysynth.knobs import Section
from raysynth.synthesis.schedule import PREDICTIONS, Sought


class Even:
    """See `raysynth.synthesis.schedule.Schedule`."""

    title = "Even"
    source = "diffusers"
    Knobs = Section
    predictions = PREDICTIONS

    def levels(self, sought: Sought, knobs: Section) -> np.ndarray | None:
        """None, the solver's own, unless steps begin below pure noise."""
        return even_levels(sought.noise.top, sought.steps) if sought.noise.midway else None


def even_levels(top: float, steps: int) -> np.ndarray:
    """[N] levels that fall evenly from `top`, as if the next one were 0."""
    return np.linspace(top, 0, steps + 1)[:-1]


PART = Even()
