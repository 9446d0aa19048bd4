"""What a probe that knows real images alone reads off generated ones: their label and attribute.

Linear heads on frozen features, every group weighing the same. `recognised` is what `generator:
auto` compares its candidates by; the stage's own is cross-fitted, so that real images, judged by
heads that have not seen them, say how far it can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.groups.balance import evenly_of_each, image_weights
from raysynth.groups.groups import Groups
from raysynth.heads.regression import fit_heads
from raysynth.models.clip import load_clip, of_planes
from raysynth.models.threads import use_threads
from raysynth.networks.build import Blueprint
from raysynth.networks.images import Data, ImageSet
from raysynth.networks.linear import Head

PROBED = 200
"""Images of each group and candidate that `recognised` looks at."""
DECAY = 0.1
LIGHT_DECAY = 0.01
"""Of a head on a handful of features."""
FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """A head for the label and one for the attribute."""

    label: Head
    attribute: Head
    attributes: int

    def right(self, features: torch.Tensor, group: NDArray[Any]) -> NDArray[np.bool_]:
        """[N, 2] whether label and attribute of [N, D] features are those of the group [N]."""
        found = (self.label.predict(features), self.attribute.predict(features))
        wanted = divmod(group, self.attributes)
        return np.stack([one == other for one, other in zip(found, wanted, strict=True)], axis=1)


def fit_probe(features: torch.Tensor, group: NDArray[Any], groups: Groups) -> Probe:
    """The probe of real images: [N, D] float32 features, [N] groups."""
    labels, width = len(groups.label_names), len(groups.attribute_names)
    weights = image_weights(group, "balanced")
    (label,) = fit_heads(features, group // width, weights, (DECAY,), labels)
    (attribute,) = fit_heads(features, group % width, weights, (DECAY,), width)
    return Probe(label, attribute, width)


def cross_fitted(
    features: torch.Tensor, group: NDArray[Any], groups: Groups, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """[N, 2] as `Probe.right` of the real images, each by a probe of the other folds."""
    found = np.zeros((len(group), 2), bool)
    for out in _folds(group, rng):
        probe = fit_probe(features[torch.from_numpy(~out)], group[~out], groups)
        found[out] = probe.right(features[torch.from_numpy(out)], group[out])
    return found


def told_apart(
    features: torch.Tensor, label: NDArray[Any], classes: int, rng: np.random.Generator
) -> float:
    """Accuracy of a linear head, every label weighing the same, on images of the other folds."""
    right = 0
    for out in _folds(label, rng):
        weights = image_weights(label[~out], "balanced")
        known = features[torch.from_numpy(~out)]
        (head,) = fit_heads(known, label[~out], weights, (LIGHT_DECAY,), classes)
        right += int((head.predict(features[torch.from_numpy(out)]) == label[out]).sum())
    return right / len(label)


def _folds(group: NDArray[Any], rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """[N] who is left out, `FOLDS` times; as many of each group, as far as that goes."""
    shuffled = rng.permutation(len(group))
    order = shuffled[np.argsort(group[shuffled], kind="stable")]
    fold = np.empty(len(group), np.int64)
    fold[order] = np.arange(len(group)) % FOLDS
    return (fold == each for each in range(FOLDS))


def recognised(
    blueprint: Blueprint,
    resources: ResourcesConfig,
    data: Data,
    images: Mapping[str, ImageSet],
    batch: int,
) -> dict[str, NDArray[np.float64]]:
    """Generator -> [G] share of its images whose label and attribute a probe on CLIP recognises.

    The probe is fitted to the real training images. `batch`: images embedded at once.
    """
    some = {name: each.take(evenly_of_each(each.group, PROBED)) for name, each in images.items()}
    task = on_worker(_recognised, resources)
    return ray.get(task.remote(blueprint, data, some, batch, resources.cpus_per_worker))


def _recognised(
    blueprint: Blueprint, data: Data, images: Mapping[str, ImageSet], batch: int, cpus: float
) -> dict[str, NDArray[np.float64]]:
    """The same, where CLIP runs."""
    use_threads(cpus)
    clip, groups = load_clip(blueprint.base), data.groups
    known = torch.from_numpy(of_planes(clip.images, data.train.pixels, batch))
    probe = fit_probe(known, data.train.group, groups)
    found = {}
    for name, each in images.items():
        seen = torch.from_numpy(of_planes(clip.images, each.pixels, batch))
        right = probe.right(seen, each.group).all(axis=1)
        sizes = each.counts(groups.count)
        hits = np.bincount(each.group, weights=right, minlength=groups.count)
        found[name] = hits / np.maximum(sizes, 1)
    return found
