"""What a schedule works on: a base's noise, and how real images' latents vary; arrays alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Noise:
    """What the levels of a base's noise schedule stand for; everything works on arrays."""

    timesteps: int
    """Number of training timesteps T."""
    ratios: np.ndarray | None
    """[T] noise per signal, sigma / alpha, at timesteps 0..T-1, rising; None: rectified flow."""
    highest: float = 1.0
    """Where steps begin; below 1 images are noised to it that are known, as `gaussian` does."""

    @property
    def top(self) -> float:
        """The highest level of a step, of those that the network was trained on."""
        return min(1 - 1 / self.timesteps, self.highest)

    @property
    def top_ratio(self) -> float:
        """Noise per signal there."""
        return float(self.ratio(np.array(self.top)))

    @property
    def midway(self) -> bool:
        """Whether steps begin below pure noise."""
        return self.highest < 1

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
