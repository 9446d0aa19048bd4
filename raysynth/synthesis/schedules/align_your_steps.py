"""The ten levels published for Stable Diffusion 1.5, in which few steps do best by its authors.

Sabour et al. 2024 minimise a bound on what a stochastic solver loses to few steps. Other numbers of
steps are interpolated as they say: noise per signal, in its logarithm, between the published levels
and the least of the base's schedule. Published for noise predictions; diffusers keeps the numbers.
"""

from __future__ import annotations

import numpy as np

from raysynth.knobs import Section
from raysynth.synthesis.schedule import Sought


class AlignYourSteps:
    """See `raysynth.synthesis.schedule.Schedule`."""

    title = "Align Your Steps"
    source = "Sabour et al. 2024 (arXiv 2404.14507)"
    Knobs = Section
    predictions = ("epsilon",)

    def levels(self, sought: Sought, knobs: Section) -> np.ndarray:
        """[N] levels; ten are the published ones."""
        from diffusers.schedulers import AysSchedules

        assert sought.noise.ratios is not None, "a diffusion's"
        published = np.array(AysSchedules["StableDiffusionSigmas"])
        known = np.log([*published[:-1], sought.noise.ratios[0]])
        first = 0.0
        if sought.noise.midway:
            top = -np.log(sought.noise.top_ratio)
            first = float(np.interp(top, -known, np.arange(len(known))))
        place = np.linspace(first, len(known) - 1, sought.steps + 1)[:-1]
        return sought.noise.level(np.exp(np.interp(place, np.arange(len(known)), known)))


PART = AlignYourSteps()
