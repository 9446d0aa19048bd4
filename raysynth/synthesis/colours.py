"""Colours: each drawn image's mean colour is moved to where those of its group's real images lie.

Mean colours of real images vary little, and a loss that is a mean over all directions of the
latents leaves such a direction to the noise: a small base draws grounds of one grey in violet and
green. After Reinhard et al. 2001 ("Color transfer between images"), who match means and spreads of
one image's pixels to another's. Ours: what is matched are the mean colours *of images*, by the
optimal transport between two Gaussians, with the drawn one measured on pilots; and a pixel moves in
proportion to its own colour, so that what is grey stays grey. Lightness is left as it is.

Shapes: B images of [H, W, 3], G groups. Colours: [2], of CHROMA.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysynth.groups.groups import Groups
from raysynth.storage.files import read_record, write_atomic

CHROMA = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])
"""[2, 3] red against green, yellow against blue: an orthonormal basis of what is not grey."""
GREY = 2.0
"""Colour, in 255ths, that any pixel has at least: of an image that is all grey, all pixels move."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Colours:
    """Of each group the map from drawn to real mean colours, m -> scale m + shift."""

    scale: Array
    """[G, 2, 2]"""
    shift: Array
    """[G, 2]"""

    @property
    def wider(self) -> list[float]:
        """[G] how many times as widely as in real images drawn ones' colours lay."""
        return [round(float(abs(np.linalg.det(scale)) ** -0.5), 2) for scale in self.scale]

    def __call__(self, pixels: np.ndarray, group: np.ndarray) -> np.ndarray:
        """[B, H, W, 3] uint8 images of their [B] groups with their colours moved."""
        moved = np.empty_like(pixels)
        for row, (image, g) in enumerate(zip(pixels, group, strict=True)):
            chroma = image @ CHROMA.T
            mean = chroma.mean((0, 1))
            step = self.scale[g] @ mean + self.shift[g] - mean
            weight = np.linalg.norm(chroma, axis=-1) + GREY
            weight /= weight.mean()
            image = image + weight[..., None] * (step @ CHROMA)
            moved[row] = np.clip(np.round(image), 0, 255)
        return moved


def mean_colours(pixels: np.ndarray) -> Array:
    """[B, 2] mean colours of [B, H, W, 3] uint8 images."""
    means: Array = pixels.mean((1, 2), dtype=np.float64) @ CHROMA.T
    return means


def colours_of(
    real: Array, real_group: np.ndarray, drawn: Array, drawn_group: np.ndarray, groups: Groups
) -> Colours:
    """The maps, of mean colours [N, 2] of real and of drawn images.

    Means and covariances of real ones are those of the group's own images and, where these are few,
    of groups akin (`gaussian`). A group of which fewer than two images were drawn is left as it is.
    """
    import torch  # not in the driver, which hands the maps on

    from raysynth.synthesis.gaussian import gaussians_of

    wanted = gaussians_of(torch.from_numpy(real)[:, :, None, None], real_group, groups)
    scale, shift = np.tile(np.eye(2), (groups.count, 1, 1)), np.zeros((groups.count, 2))
    for g in range(groups.count):
        own = drawn[drawn_group == g]
        if len(own) > 1:
            mean, factor = (each.double().numpy() for each in wanted.of(g))
            scale[g] = transport(np.cov(own.T), factor.T @ factor)
            shift[g] = mean - scale[g] @ own.mean(0)
    return Colours(scale, shift)


def transport(drawn: Array, real: Array) -> Array:
    """[2, 2] symmetric map that gives what has covariance `drawn` the covariance `real`.

    The optimal one for squared distances (Peyré & Cuturi 2019, remark 2.31). Directions in which
    nothing varies are not moved.
    """
    root = _root(drawn)
    inverse = np.linalg.pinv(root, rcond=1e-6, hermitian=True)
    map_: Array = inverse @ _root(root @ real @ root) @ inverse
    still = np.eye(2) - root @ inverse
    return map_ + still


def _root(covariance: Array) -> Array:
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(covariance)
    root: Array = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root


def keep(colours: Colours, path: str) -> None:
    """Write the maps to a file or URI, whole."""
    told = {"scale": colours.scale.tolist(), "shift": colours.shift.tolist()}
    write_atomic(path, json.dumps(told).encode())


def read(path: str) -> Colours:
    """What `keep` wrote; raises DataError where there is none."""
    found = read_record(path, "scale", "shift", kind=list)
    return Colours(*(np.array(found[name], np.float64) for name in ("scale", "shift")))
