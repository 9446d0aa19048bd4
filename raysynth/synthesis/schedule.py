"""Schedules: at which noise levels a solver asks the network.

A schedule is a file of `raysynth/synthesis/schedules`. A level is a share of the base's noise
schedule, from 1, pure noise, to 0: the timestep that the network is told over their number. Of a
rectified flow it is the share of noise in the image, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raysynth.knobs import Section
from raysynth.models.scheduler import FLOW as FLOW
from raysynth.registry import Registry

if TYPE_CHECKING:  # the configuration names schedules, and waits for no library
    import numpy as np

    from raysynth.synthesis.noise import Noise, Spectrum

EVEN = "even"
"""The schedule that leaves the levels to the solver."""
DIFFUSIONS = ("epsilon", "v_prediction", "sample")
PREDICTIONS = (*DIFFUSIONS, FLOW)
"""What a base may be trained to predict (diffusers' `prediction_type`)."""


@dataclass(frozen=True)
class Sought:
    """What levels are asked for."""

    steps: int
    """Number of levels N."""
    noise: Noise
    factors: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """([P, N] levels of P candidates, [K] variances) -> [P, K] what the run's solver makes of a
    direction's standard deviation, as a factor, see `raysynth.synthesis.factors`."""
    spectrum: Callable[[], Spectrum]
    """Encodes real images: seconds, only where it is asked for."""


class Schedule(Protocol):
    """One way to place the levels."""

    title: str
    source: str
    Knobs: type[Section]
    predictions: tuple[str, ...]
    """Of `PREDICTIONS`, what a base may predict."""

    def levels(self, sought: Sought, knobs: Any) -> np.ndarray | None:
        """[N] falling levels within (0, 1); None: the solver's own. A pure function."""


SCHEDULES: Registry[Schedule] = Registry("raysynth.synthesis.schedules", "schedule")
