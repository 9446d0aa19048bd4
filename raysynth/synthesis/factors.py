"""A solver as a linear map: what it makes of the spread of Gaussian directions.

Of a direction with variance l the exact denoiser is E[x0 | x] = l a x / (a^2 l + b^2), where a
noisy image is x = a x0 + b e (Bishop 2006, eq. 2.116): a solver's steps then only multiply x.
diffusers' own solver takes them here, one number per direction, many candidates of levels at once.

Shape suffixes: P candidates, N levels, K directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysynth.synthesis.noise import Noise
from raysynth.synthesis.solver import last_sigma, sigmas_of


def spread_factors(
    solver: Any, noise: Noise, levels: np.ndarray, variances: np.ndarray
) -> np.ndarray:
    """[P, K] standard deviations of what is drawn, as a factor of the images' own.

    Parameters
    ----------
    solver : a deterministic solver of the base, from `exact`.
    levels : [P, N] falling.
    variances : [K] above 0.
    """
    steps = levels.shape[1]
    last = np.full((len(levels), 1), last_sigma(solver, noise))
    columns = (np.concatenate([sigmas_of(noise, levels), last], axis=1), *noise.shares(levels))
    sigmas_PN, signal_PN, spread_PN = (torch.from_numpy(c).float() for c in columns)
    variance_K1 = torch.from_numpy(np.asarray(variances)).float()[:, None]

    def one(sigmas: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
        solver.set_timesteps(steps)
        solver.sigmas = sigmas
        solver.set_begin_index(0)
        x_K1 = torch.ones_like(variance_K1) * solver.init_noise_sigma
        if noise.midway:  # as wide as noised images of that spread
            x_K1 = (signal[0].square() * variance_K1 + spread[0].square()).sqrt()
        for step, timestep in enumerate(solver.timesteps):
            a, b = signal[step], spread[step]
            clean_K1 = x_K1 * variance_K1 * a / (a.square() * variance_K1 + b.square())
            x_K1 = solver.step(clean_K1, timestep, x_K1, return_dict=False)[0]
        return (x_K1.abs() / variance_K1.sqrt())[:, 0]

    found: np.ndarray = torch.vmap(one)(sigmas_PN, signal_PN, spread_PN).double().numpy()
    return found


def exact(solver: Any) -> Any:
    """The same solver for a network that gives the clean image, without thresholds on it."""
    given = {"prediction_type": "sample", "thresholding": False}
    return type(solver).from_config(solver.config, **given)
