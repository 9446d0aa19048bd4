"""Levels whose noise per signal falls evenly in its `rho`-th root: more steps where it is little.

Karras et al. 2022, eq. 5, from the largest ratio of the base's schedule to its smallest. For
diffusions: a rectified flow begins at pure noise, where the ratio is infinite.
"""

from __future__ import annotations

import numpy as np

from raysynth.knobs import Section, knob
from raysynth.synthesis.schedule import DIFFUSIONS, Sought


class Spacing(Section):
    """Of the spacing."""

    rho: float = knob(7.0, "Root in which the ratios are evenly spaced (theirs: 7).", ge=1)


class Karras:
    """See `raysynth.synthesis.schedule.Schedule`."""

    title = "Karras"
    source = "Karras et al. 2022 (arXiv 2206.00364)"
    Knobs = Spacing
    predictions = DIFFUSIONS

    def levels(self, sought: Sought, knobs: Spacing) -> np.ndarray:
        """[N] levels."""
        assert sought.noise.ratios is not None, "a diffusion's"
        most, least = sought.noise.ratio(np.array([sought.noise.top, 0])) ** (1 / knobs.rho)
        return sought.noise.level(np.linspace(most, least, sought.steps) ** knobs.rho)


PART = Karras()
