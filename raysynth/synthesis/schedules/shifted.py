"""Even levels, shifted towards noise: s' = shift s / (1 + (shift - 1) s).

Esser et al. 2024, eq. 23 (diffusers' `flow_shift`): noise per signal, s / (1 - s), is `shift` times
as much at each step. What an image looks like as a whole is settled at high levels; a shift gives
them more of the steps. For rectified flow: a diffusion's schedule ends at a finite ratio, which the
first levels would be shifted past.
"""

from __future__ import annotations

import numpy as np

from raysynth.knobs import Rate, Section, knob
from raysynth.synthesis.schedule import FLOW, Sought


class Shift(Section):
    """Of the shift."""

    shift: Rate = knob(3.0, "Noise per signal at each step, as a multiple of the even levels'.")


class Shifted:
    """See `raysynth.synthesis.schedule.Schedule`."""

    title = "Shifted"
    source = "Esser et al. 2024 (arXiv 2403.03206)"
    Knobs = Shift
    predictions = (FLOW,)

    def levels(self, sought: Sought, knobs: Shift) -> np.ndarray:
        """[N] the even levels of DPM-Solver++ in diffusers, shifted."""
        even = np.linspace(sought.noise.top, 0, sought.steps + 1)[:-1]
        return sought.noise.level(knobs.shift * sought.noise.ratio(even))


PART = Shifted()
