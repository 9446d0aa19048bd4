"""Nearest training images in embedding space, for the measure of copies.

CLIP's raw cosines tell what an image shows, not which image it is: two different photographs of a
class may have 0.99. Whitened vectors, with the directions that all images of the class share taken
out, tell images apart; that is how copy detection uses descriptors (SSCD, Pizzi et al., CVPR 2022,
arXiv 2202.10261, whitening at inference). Models are fine-tuned on mirrored images too, so each
training image is searched in both orientations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from raysynth.clustering.embed import MIRRORED, column_vectors, encoded
from raysynth.groups import Groups

NEIGHBOURS = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.int32()),
        ("nearest", pa.string()),
        ("similarity", pa.float32()),
    ]
)
CHUNK = 8192  # training images compared at once: a batch needs B x CHUNK numbers beside them
COVARIANCE = 20_000  # images of a class that its covariance is taken from at most
SAMPLE = 2000  # validation images per group that are searched for: enough for a 99 % quantile
BATCH = 256


@dataclass(frozen=True)
class Class:
    """The training images of one class on a device, whitened, in both orientations."""

    ids: NDArray[np.object_]
    mean_D: Tensor
    whitening_DD: Tensor
    images_ND: Tensor
    """N = 2 * len(ids): all images, then all of them mirrored."""

    def __call__(self, vectors_BD: Tensor) -> tuple[Tensor, Tensor]:
        """[B] row of the most similar of the images, and the cosine of the whitened vectors."""
        queries_BD = _whitened(vectors_BD, self.mean_D, self.whitening_DD)
        best = torch.full((len(queries_BD),), -2.0, device=queries_BD.device)
        place = torch.zeros(len(queries_BD), dtype=torch.long, device=queries_BD.device)
        for first in range(0, len(self.images_ND), CHUNK):
            value, row = (queries_BD @ self.images_ND[first : first + CHUNK].T).max(dim=1)
            place = torch.where(value > best, row + first, place)
            best = torch.maximum(value, best)
        return place % len(self.ids), best.clamp(-1, 1)


class Neighbours:
    """The training images of a run, by class: 8 D bytes of a device's memory for each."""

    def __init__(self, table: pa.Table, groups: Groups, device: torch.device) -> None:
        """Whiten the clustering stage's embeddings (see `embed.EMBEDDINGS`)."""
        self.groups = groups
        group, ids = table["group"].to_numpy(), table["id"].to_numpy(zero_copy_only=False)
        vectors, mirrored = encoded(table), column_vectors(table[MIRRORED.name])
        self._classes = []
        for label in range(len(groups.label_names)):
            rows = np.flatnonzero(np.isin(group, groups.of_label(label)))
            self._classes.append(_class(ids[rows], vectors, mirrored, rows, device))

    def __call__(
        self, vectors: NDArray[np.float32], group: NDArray[np.int32]
    ) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """The nearest training image of each image's class, and how similar it is.

        Parameters
        ----------
        vectors : [B, D] embeddings, not whitened.
        group : [B] the images' groups.

        Returns
        -------
        ids [B], and cosines [B] of the whitened vectors.
        """
        label = group // len(self.groups.attribute_names)
        ids, similarity = np.empty(len(group), object), np.empty(len(group), np.float32)
        for y in np.unique(label).tolist():
            some, images = np.flatnonzero(label == y), self._classes[y]
            place, cosine = images(torch.from_numpy(vectors[some]).to(images.mean_D))
            ids[some] = images.ids[place.cpu().numpy()]
            similarity[some] = cosine.cpu().numpy()
        return ids, similarity


def real_neighbours(
    training: pa.Table, validation: pa.Table, groups: Groups, seed: int
) -> pa.Table:
    """The nearest training image of validation images: how near one comes without copying.

    Training images themselves would not do: a whitening made from few of them drives them apart,
    and only them, so that every other image would look like a copy.

    Parameters
    ----------
    training, validation : their embeddings; at most `SAMPLE` validation images per group are used.

    Returns
    -------
    Table NEIGHBOURS, by group.
    """
    search = Neighbours(training, groups, torch.device("cpu"))
    group, vectors = validation["group"].to_numpy(), encoded(validation)
    parts = [NEIGHBOURS.empty_table()]
    for g in range(groups.count):
        rows = np.random.default_rng([seed, 23, g]).permutation(np.flatnonzero(group == g))
        rows = np.sort(rows[:SAMPLE])
        for some in np.split(rows, range(BATCH, len(rows), BATCH)):
            found = search(vectors[some], group[some])
            columns = [validation["id"].take(some), validation["group"].take(some), *found]
            parts.append(pa.table(columns, schema=NEIGHBOURS))
    return pa.concat_tables(parts).combine_chunks()


def _class(
    ids: NDArray[np.object_],
    vectors: NDArray[np.float32],
    mirrored: NDArray[np.float32],
    rows: NDArray[np.int64],
    device: torch.device,
) -> Class:
    """Whitening by the covariance of the images, shrunk as few images need (Ledoit & Wolf 2004)."""
    some = vectors[rows[:: -(-len(rows) // COVARIANCE)]]
    covariance, _ = ledoit_wolf(some)
    values, axes = np.linalg.eigh(covariance)
    matrix = axes / np.sqrt(np.maximum(values, 1e-12))
    mean, whitening = (
        torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)
        for x in (some.mean(axis=0), matrix)
    )
    images = torch.empty((2 * len(rows), len(mean)), device=device)
    for start, kind in ((0, vectors), (len(rows), mirrored)):
        for first in range(0, len(rows), CHUNK):  # by parts: no second copy of them all
            part = torch.from_numpy(kind[rows[first : first + CHUNK]]).to(device)
            place = start + first
            images[place : place + len(part)] = _whitened(part, mean, whitening)
    return Class(ids, mean, whitening, images)


def _whitened(vectors: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    return torch.nn.functional.normalize((vectors - mean) @ whitening, dim=-1)
