"""Even timesteps: the levels that diffusers' solver takes by itself."""

from __future__ import annotations

from raysynth.knobs import Section
from raysynth.synthesis.schedule import PREDICTIONS, Sought


class Even:
    """See `raysynth.synthesis.schedule.Schedule`."""

    title = "Even"
    source = "diffusers"
    Knobs = Section
    predictions = PREDICTIONS

    def levels(self, sought: Sought, knobs: Section) -> None:
        """The solver's own."""


PART = Even()
