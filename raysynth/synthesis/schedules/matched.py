"""Levels fitted to the real images' latents, so that each direction keeps the spread it has there.

With few steps a solver narrows what it draws, broad directions (brightness) and fine ones (texture)
by different factors. Of Gaussian latents the exact denoiser is linear, E[x0 | x] = l a x /
(a^2 l + b^2) for variance l and shares a, b of image and noise, hence so is the solver, and the
factor of every direction is known for any levels. Those are taken whose factors are nearest to 1:
least squares of their logarithms, weighted half by variance, half evenly. Levels far apart fit
about equally well; of these the ones that fall most evenly are taken (`EVENNESS`), so that no part
of the way is left to one step. Guidance is no linear map: the fit is without it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raysynth.knobs import Section, Share, knob
from raysynth.synthesis.noise import Noise, Spectrum
from raysynth.synthesis.schedule import PREDICTIONS, Sought

KNOTS = 6
"""Levels that are searched for; more are interpolated between them (monotone cubics)."""
CLOSEST, FARTHEST = 0.02, 0.95
"""How far a level may be from the one before, as a share of all that is left to fall."""
EVENNESS = 3e-5
"""Weight of the falls' relative variance (in the logarithm of noise per signal) beside the mean
squared logarithm of the factors, which is 1e-4 where all are off by a hundredth."""
POPULATION, GENERATIONS, TOLERANCE = 12, 400, 1e-4
"""Of the search; candidates are `POPULATION` times as many as levels are searched for."""


class Fit(Section):
    """Of the fit."""

    labels: Share = knob(
        0.0,
        "Weight, of 1, on the directions that tell an attribute's labels apart, by how well they "
        "do (F statistic, less the 1 of chance); the rest is half by variance, half even.",
    )


class Matched:
    """See `raysynth.synthesis.schedule.Schedule`."""

    title = "Matched to the spectrum"
    source = "ours"
    Knobs = Fit
    predictions = PREDICTIONS

    def levels(self, sought: Sought, knobs: Fit) -> np.ndarray:
        """[N] levels; the first is the highest that the network was trained on."""
        spectrum = sought.spectrum()
        weights = weights_of(spectrum, knobs.labels)

        def misfit(candidates: np.ndarray) -> np.ndarray:
            """[P] of candidates [D, P], as scipy lays them out."""
            levels = placed(candidates.T, sought.steps, sought.noise)
            factors = sought.factors(levels, spectrum.variances)
            with np.errstate(divide="ignore"):
                found: np.ndarray = np.log(factors) ** 2 @ weights
            found += EVENNESS * _unevenness(sought.noise.ratio(levels))
            return np.where(np.isfinite(found), found, np.inf)

        return placed(_fittest(misfit, min(sought.steps - 1, KNOTS)), sought.steps, sought.noise)[0]


def weights_of(spectrum: Spectrum, labels: float) -> np.ndarray:
    """[K] weights, of sum 1, of the bundles of a spectrum."""
    total = spectrum.counts * spectrum.variances
    usual = (total / total.sum() + spectrum.counts / spectrum.counts.sum()) / 2
    share = labels * spectrum.labels.sum()  # nothing tells labels apart: 0
    weights: np.ndarray = (1 - share) * usual + labels * spectrum.labels
    return weights


def placed(falls: np.ndarray, steps: int, noise: Noise) -> np.ndarray:
    """[P, N] falling levels, of the D <= N-1 falls [P, D] within (0, 1) between knots.

    From the highest level on, each knot falls by its share of what is left, counted in the
    logarithm of noise per signal, down to that of timestep 1.
    """
    from scipy.interpolate import PchipInterpolator

    ends = np.log(noise.ratio(np.array([noise.top, 1 / noise.timesteps])))
    left = np.cumprod(np.concatenate([np.ones((len(falls), 1)), 1 - falls], axis=1), axis=1)
    knots = ends[1] + (ends[0] - ends[1]) * left
    if knots.shape[1] < steps:
        at = np.linspace(0, steps - 1, knots.shape[1])
        knots = PchipInterpolator(at, knots, axis=1)(np.arange(steps))
    return noise.level(np.exp(knots))


def _unevenness(ratios: np.ndarray) -> np.ndarray:
    """[P] variance of the falls between N levels' noise per signal [P, N], relative to the mean."""
    falls = -np.diff(np.log(ratios), axis=1)
    if falls.shape[1] < 2:
        return np.zeros(len(falls))
    found: np.ndarray = (falls / falls.mean(axis=1, keepdims=True)).var(axis=1)
    return found


def _fittest(misfit: Callable[[np.ndarray], np.ndarray], unknown: int) -> np.ndarray:
    """[1, D] falls of the least misfit, the same at every call."""
    from scipy.optimize import differential_evolution

    if not unknown:
        return np.empty((1, 0))
    found = differential_evolution(
        misfit,
        [(CLOSEST, FARTHEST)] * unknown,
        popsize=POPULATION,
        maxiter=GENERATIONS,
        tol=TOLERANCE,
        seed=0,
        polish=False,
        updating="deferred",
        vectorized=True,
    )
    return found.x[None]


PART = Matched()
