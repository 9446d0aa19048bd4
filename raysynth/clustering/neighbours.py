"""Nearest training images in embedding space, for the measure of copies.

CLIP's raw cosines tell what an image shows, not which image it is: two different photographs of a
group may have 0.99. What the images of a group have in common is therefore taken out, the group's
mean subtracted and the rest whitened, as copy detection whitens its descriptors (SSCD, Pizzi et
al., CVPR 2022, arXiv 2202.10261). Models are fine-tuned on mirrored images too, so each training
image is searched in both orientations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.nn import functional as F

from raysynth.clustering.embed import MIRRORED, column_vectors, encoded
from raysynth.groups.groups import Groups

NEIGHBOURS = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.int32()),
        ("nearest", pa.string()),
        ("similarity", pa.float32()),
    ]
)
CHUNK = 8192  # training images compared at once: a batch needs B x CHUNK numbers beside them
COVARIANCE = 20_000  # training images that the covariance is taken from at most
SAMPLE = 2000  # validation images per group that are searched for: enough for a 99 % quantile
BATCH = 256


@dataclass(frozen=True)
class Space:
    """Where images are told apart: `(vector - mean of a group) @ whitening`, normalised."""

    means_GD: Tensor
    whitening_DD: Tensor

    def __call__(self, vectors_BD: NDArray[np.float32], group: int) -> Tensor:
        """[B, D] on the space's device, of embeddings taken for images of the group."""
        vectors = torch.tensor(vectors_BD, device=self.means_GD.device)
        return F.normalize((vectors - self.means_GD[group]) @ self.whitening_DD, dim=-1)


class Neighbours:
    """All training images of a run, by group: 8 D bytes of a device's memory for each.

    An image is compared with those of every group, because a model may speak for a group whose
    images it never saw: lent, edited from another group's images, or shared. With the images of
    group h it is compared as an image of h, less the mean of h, or a copy would not lie where its
    original does.
    """

    def __init__(
        self, training: pa.Table, validation: pa.Table, groups: Groups, device: torch.device
    ) -> None:
        """Take in the clustering stage's embeddings (see `embed.EMBEDDINGS`).

        Of the validation images only the groups' means are used, where training may hold but one.
        """
        group, ids = training["group"].to_numpy(), training["id"].to_numpy(zero_copy_only=False)
        vectors, mirrored = encoded(training), column_vectors(training[MIRRORED.name])
        others = (encoded(validation), validation["group"].to_numpy())
        self.space = _space(vectors, group, *others, groups.count, device)
        self._ids: list[NDArray[np.object_]] = []
        self._images: list[Tensor] = []
        for g in range(groups.count):
            rows = np.flatnonzero(group == g)
            images = torch.empty((2 * len(rows), vectors.shape[1]), device=device)
            for start, kind in ((0, vectors), (len(rows), mirrored)):
                for first in range(0, len(rows), CHUNK):  # by parts: no second copy of them all
                    part, place = rows[first : first + CHUNK], start + first
                    images[place : place + len(part)] = self.space(kind[part], g)
            self._ids.append(ids[rows])
            self._images.append(images)

    def __call__(
        self, vectors: NDArray[np.float32]
    ) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """The nearest training image of each of [B, D] embeddings, and how similar it is.

        Returns
        -------
        ids [B], and cosines [B] in `Space`.
        """
        ids, similarity = np.full(len(vectors), "", object), np.full(len(vectors), -2, np.float32)
        for g, (names, images) in enumerate(zip(self._ids, self._images, strict=True)):
            if not len(names):
                continue
            place, cosine = _nearest(self.space(vectors, g), images)
            near = cosine.cpu().numpy()
            nearer = near > similarity
            ids[nearer] = names[place.cpu().numpy() % len(names)][nearer]
            similarity[nearer] = near[nearer]
        return ids, similarity


def real_neighbours(
    training: pa.Table, validation: pa.Table, groups: Groups, seed: int
) -> pa.Table:
    """The nearest training image of validation images: how near one comes without copying.

    Training images themselves would not do: a whitening made from few of them drives them apart,
    and only them, so that all other images would look like copies.

    Parameters
    ----------
    training, validation : their embeddings; at most `SAMPLE` validation images per group are used.

    Returns
    -------
    Table NEIGHBOURS, by group.
    """
    search = Neighbours(training, validation, groups, torch.device("cpu"))
    group, vectors = validation["group"].to_numpy(), encoded(validation)
    parts = [NEIGHBOURS.empty_table()]
    for g in range(groups.count):
        rows = np.random.default_rng([seed, 23, g]).permutation(np.flatnonzero(group == g))
        rows = np.sort(rows[:SAMPLE])
        for some in np.split(rows, range(BATCH, len(rows), BATCH)):
            found = search(vectors[some])
            columns = [validation["id"].take(some), validation["group"].take(some), *found]
            parts.append(pa.table(columns, schema=NEIGHBOURS))
    return pa.concat_tables(parts).combine_chunks()


def _space(
    training: NDArray[np.float32],
    group: NDArray[np.int32],
    validation: NDArray[np.float32],
    validation_group: NDArray[np.int32],
    groups: int,
    device: torch.device,
) -> Space:
    """Whitening by the covariance within groups, shrunk as few images need (Ledoit & Wolf 2004)."""
    means = np.stack(
        [
            np.concatenate([training[group == g], validation[validation_group == g]]).mean(axis=0)
            for g in range(groups)
        ]
    )
    some = slice(None, None, -(-len(training) // COVARIANCE))
    covariance, _ = ledoit_wolf(training[some] - means[group[some]], assume_centered=True)
    values, axes = np.linalg.eigh(covariance)
    matrix = (axes / np.sqrt(np.maximum(values, 1e-12))).astype(np.float32)
    return Space(*(torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in (means, matrix)))


def _nearest(queries_BD: Tensor, images_ND: Tensor) -> tuple[Tensor, Tensor]:
    """[B] row of the most similar of the images, and the cosine."""
    best = torch.full((len(queries_BD),), -2.0, device=queries_BD.device)
    place = torch.zeros(len(queries_BD), dtype=torch.long, device=queries_BD.device)
    for first in range(0, len(images_ND), CHUNK):
        value, row = (queries_BD @ images_ND[first : first + CHUNK].T).max(dim=1)
        place = torch.where(value > best, row + first, place)
        best = torch.maximum(value, best)
    return place, best.clamp(-1, 1)
