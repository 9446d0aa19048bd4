"""Label fidelity: how well real images' labels are read off synthetic ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.groups.balance import image_weights
from raysynth.heads.regression import fit_heads
from raysynth.models.device import use_threads
from raysynth.networks.build import Blueprint
from raysynth.networks.images import Data, ImageSet
from raysynth.references.control import CONTROLS

PROBED = 200
"""Images of each group and candidate that the probe looks at."""
PROBE_DECAY = 0.1


def fidelity(
    blueprint: Blueprint,
    resources: ResourcesConfig,
    data: Data,
    images: Mapping[str, ImageSet],
    batch: int,
) -> dict[str, NDArray[np.float64]]:
    """Generator -> [G] share of its images whose label and attribute a probe recognises.

    `batch`: images embedded at once.
    """
    some = {name: each.take(_probed(each.group)) for name, each in images.items()}
    task = on_worker(probe, resources)
    return ray.get(task.remote(blueprint, data, some, batch, resources.cpus_per_worker))


def _probed(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of at most `PROBED` images of each group, evenly spaced: images lie by cluster."""
    rows = (np.flatnonzero(group == g) for g in np.unique(group))
    places = [r[:: -(-len(r) // PROBED)] for r in rows]
    return np.concatenate(places)


def probe(
    blueprint: Blueprint, data: Data, images: Mapping[str, ImageSet], batch: int, cpus: float
) -> dict[str, NDArray[np.float64]]:
    """The probe itself, where CLIP runs."""
    use_threads(cpus)
    embed = CONTROLS["clip_balanced_head"].load(blueprint, data.train.size, batch)
    groups, known = data.groups, torch.from_numpy(embed(data.train))
    weights = image_weights(data.train.group, "balanced")
    width = len(groups.attribute_names)
    (label,) = fit_heads(known, data.train.label, weights, (PROBE_DECAY,), len(groups.label_names))
    (attribute,) = fit_heads(known, data.train.group % width, weights, (PROBE_DECAY,), width)
    found = {}
    for name, each in images.items():
        seen = torch.from_numpy(embed(each))
        right = label.predict(seen) == each.label
        right &= attribute.predict(seen) == each.group % width
        sizes = np.bincount(each.group, minlength=groups.count)
        found[name] = np.bincount(each.group, weights=right, minlength=groups.count) / np.maximum(
            sizes, 1
        )
    return found
