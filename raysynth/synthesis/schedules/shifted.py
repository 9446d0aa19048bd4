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
from raysynth.synthesis.schedules.even import even_levels


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
        """[N] the even levels of DPM-Solver++ in diffusers, shifted.

        Steps that begin below pure noise begin there after the shift.
        """
        noise, top = sought.noise, sought.noise.top
        if noise.midway:
            top = float(noise.level(np.array(noise.top_ratio / knobs.shift)))
        return noise.level(knobs.shift * noise.ratio(even_levels(top, sought.steps)))


PART = Shifted()
