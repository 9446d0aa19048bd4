"""Cell guidance: images of a group are spread evenly over the cells that its real images form.

After the aim of Su et al. 2023, who guide sampling over an estimate of the data manifold towards a
more uniform distribution; their objectives, scale and steps are not published, and no code is, so
everything here is ours. The manifold is k-means cells of a group's real latents in the directions
in which they vary most. Image number i of a voice is given cell i mod M; where a step's clean image
lies outside the ball of that cell, it is moved towards it, along what tells the cells apart alone:
nothing is a target by itself, and inside the ball everything is left as it is. The gradient is by
the clean image (the shortcut of He et al. 2024, arXiv 2311.16424): no pass through the network.

Shapes: B images, D numbers of a latent, G groups, M cells, K directions,
J < M of them that tell cells apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raysynth.knobs import Count, Share, knob
from raysynth.synthesis.guidance import PROMPT, Aim, Fit, Level, Within

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from raysynth.models.prediction import Predicted

LEAST = 8
"""Real images for each cell, without which a group is left alone."""


class CellKnobs(Within):
    """How many cells, of what, and how far images go."""

    interval: tuple[Share, Share] = knob(
        (0.15, 0.9),
        "Lowest and highest noise level, as shares of the noise schedule, at which images are "
        "moved.",
    )
    cells: Annotated[int, Field(ge=2)] = knob(8, "k-means cells of a group's real latents.")
    dimensions: Count = knob(8, "Directions of largest variance that cells are made in.")
    scale: Share = knob(1.0, "Share of the way to the cell's ball that a step's clean image goes.")


def moves(clean: Tensor, aim: Aim, scale: float) -> Tensor:
    """[B, C, H, W] shifts of clean images [B, C, H, W]; zero inside the ball, and without aim."""
    fit, flat = aim.fit, clean.flatten(1)
    rows = aim.group[:, None, None]
    # All groups' directions at once: gathering those of each row would copy them B times.
    place_BGJ = (flat @ fit["into"].flatten(0, 1).T - fit["origin"].flatten()).unflatten(
        1, fit["into"].shape[:2]
    )
    place_BJ = place_BGJ.gather(1, rows.expand(-1, 1, place_BGJ.shape[2]))[:, 0]
    number = aim.number.clamp(min=0)
    away_BJ = place_BJ - fit["centres"][aim.group, number]
    distance_B = away_BJ.norm(dim=1)
    radius_B = fit["radii"][aim.group, number]
    share_B = scale * (1 - radius_B / distance_B.clamp(min=1e-12)).clamp(min=0)
    step_BJ = (-share_B * (aim.number >= 0))[:, None] * away_BJ
    steps_BGJ = place_BGJ.new_zeros(place_BGJ.shape)
    steps_BGJ.scatter_(1, rows.expand(-1, 1, step_BJ.shape[1]), step_BJ[:, None])
    return (steps_BGJ.flatten(1) @ fit["into"].flatten(0, 1)).view_as(clean)


def cells_of(latents_ND: Tensor, knobs: CellKnobs, state: int) -> dict[str, Tensor]:
    """The cells of one group's latents, in the J directions in which their centres differ.

    `into` [J, D], orthonormal, leads there; `origin` [J] is where the latents' mean is, `centres`
    [M, J] are told from it, and `radii` [M] are half-way to the nearest other centre: a ball as
    wide as a cell's images reaches into its neighbours. What does not tell cells apart stays free.
    `state`: of the random choices.
    """
    import torch

    from raysynth.clustering.kmeans import k_means

    mean = latents_ND.mean(0)
    _, _, axes_KD = torch.linalg.svd(latents_ND - mean, full_matrices=False)
    axes_KD = axes_KD[: knobs.dimensions]
    place_NK = (latents_ND - mean) @ axes_KD.T
    label = torch.from_numpy(k_means(place_NK.numpy(), knobs.cells, state)).long()
    label = label.unique(return_inverse=True)[1]  # of images that are all alike, fewer cells
    count = int(label.max()) + 1
    centres_MK = torch.stack([place_NK[label == m].mean(0) for m in range(count)])
    _, _, basis_JK = torch.linalg.svd(centres_MK - centres_MK.mean(0), full_matrices=False)
    basis_JK = basis_JK[: count - 1]
    centres_MJ = centres_MK @ basis_JK.T
    apart_MM = torch.cdist(centres_MJ, centres_MJ).fill_diagonal_(torch.inf)
    radii_M = apart_MM.min(1).values / 2
    into = basis_JK @ axes_KD
    return {"into": into, "origin": into @ mean, "centres": centres_MJ, "radii": radii_M}


class Cell:
    """See `raysynth.synthesis.guidance.Fitted`."""

    title = "Cell guidance"
    source = "ours, a surrogate of manifold guidance, Su et al. 2023 (unpublished code)"
    Knobs = CellKnobs

    def conditions(self, scale: float, knobs: CellKnobs) -> tuple[str, ...]:
        """None besides the prompt's."""
        return ()

    def fit(
        self, latents: Tensor, group: np.ndarray, groups: int, seed: int, knobs: CellKnobs
    ) -> Fit:
        """The cells of each group that has `LEAST` images for each."""
        import torch

        from raysynth.clustering.kmeans import group_state

        size, count, between = latents[0].numel(), knobs.cells, knobs.cells - 1
        tensors = {
            "into": torch.zeros(groups, between, size),
            "origin": torch.zeros(groups, between),
            "centres": torch.zeros(groups, count, between),
            "radii": torch.zeros(groups, count),
        }
        flat, aims = latents.flatten(1).float(), [0] * groups
        for g in range(groups):
            own = flat[torch.from_numpy(group == g)]
            if len(own) < LEAST * count:
                continue
            found = cells_of(own, knobs, group_state(seed, g))
            aims[g] = len(found["radii"])
            for name, tensor in tensors.items():
                place = tuple(slice(side) for side in found[name].shape)
                tensor[g][place] = found[name]
        return Fit(tensors, tuple(aims))

    def __call__(
        self, predicted: Mapping[str, Predicted], at: Level, knobs: CellKnobs
    ) -> Predicted:
        """The prompt's prediction, its clean image moved towards each row's cell."""
        prompt = predicted[PROMPT]
        if at.aim is None or not knobs.scale:
            return prompt
        return prompt.moved(moves(prompt.clean, at.aim, knobs.scale))


PART = Cell()
