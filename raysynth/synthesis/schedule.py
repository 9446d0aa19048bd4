"""Schedules: at which noise levels a solver asks the network.

A schedule is a file of `raysynth/synthesis/schedules`. A level is a share of the base's noise
schedule, from 1, pure noise, to 0: the timestep that the network is told over their number. Of a
rectified flow it is the share of noise in the image, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raysynth.knobs import Section
from raysynth.registry import Registry

EVEN = "even"
"""The schedule that leaves the levels to the solver."""
FLOW = "flow_prediction"
DIFFUSIONS = ("epsilon", "v_prediction", "sample")
PREDICTIONS = (*DIFFUSIONS, FLOW)
"""What a base may be trained to predict (diffusers' `prediction_type`)."""


@dataclass(frozen=True)
class Noise:
    """What the levels of a base's noise schedule stand for; everything works on arrays."""

    timesteps: int
    """Number of training timesteps T."""
    ratios: np.ndarray | None
    """[T] noise per signal, sigma / alpha, at timesteps 0..T-1, rising; None: rectified flow."""

    @property
    def top(self) -> float:
        """The highest level that the network was trained on."""
        return 1 - 1 / self.timesteps

    def ratio(self, level: np.ndarray) -> np.ndarray:
        """Noise per signal, sigma / alpha, of levels."""
        if self.ratios is None:
            return level / (1 - level)
        known = np.arange(len(self.ratios))
        return np.exp(np.interp(level * self.timesteps, known, np.log(self.ratios)))

    def level(self, ratio: np.ndarray) -> np.ndarray:
        """The level where noise per signal is this; those beyond the schedule are its ends."""
        if self.ratios is None:
            return ratio / (1 + ratio)
        known = np.arange(len(self.ratios))
        return np.interp(np.log(ratio), np.log(self.ratios), known) / self.timesteps

    def shares(self, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares of image and noise in a noisy image: 1-s and s; sqrt(a) and sqrt(1-a)."""
        if self.ratios is None:
            return 1 - level, level
        signal = 1 / np.sqrt(1 + self.ratio(level) ** 2)
        return signal, signal * self.ratio(level)

    def trained(self, level: np.ndarray) -> np.ndarray:
        """The nearest levels that the network was trained on: a diffusion's whole timesteps."""
        if self.ratios is None:
            return level
        return np.round(level * self.timesteps) / self.timesteps


@dataclass(frozen=True)
class Spectrum:
    """How real images' latents vary, within their groups, in K bundles of similar directions."""

    variances: np.ndarray
    """[K] above 0."""
    counts: np.ndarray
    """[K] directions of each bundle."""
    labels: np.ndarray
    """[K] shares, of sum 1, of what tells an attribute's labels apart; zeros where nothing does."""


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
