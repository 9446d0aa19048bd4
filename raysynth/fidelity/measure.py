"""All that is measured of a run's images, on a worker: from tables to plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.fidelity import statistics
from raysynth.fidelity.distances import beside_floor, principal
from raysynth.fidelity.encoder import open_space
from raysynth.fidelity.gate import Count, judged
from raysynth.fidelity.probe import cross_fitted, fit_probe, told_apart
from raysynth.fidelity.seen import Chosen, Seen, Tables, look_at_made, look_at_real
from raysynth.fidelity.settings import FidelityConfig
from raysynth.groups.groups import Groups
from raysynth.models.threads import use_threads
from raysynth.networks.build import Blueprint
from raysynth.storage.tables import stored_side

FEW = 20
"""Images of a cluster from which its agreement is told."""


@dataclass(frozen=True)
class Asked:
    """What is measured, where and by what; `cpus`: of the worker."""

    settings: FidelityConfig
    blueprint: Blueprint
    tables: Tables
    chosen: Chosen
    groups: Groups
    cpus: float


def measure(asked: Asked) -> dict[str, Any]:
    """Facts of the stage, see `fidelity.stage.run_fidelity`, and `images`: what is seen of each."""
    use_threads(asked.cpus)
    side = asked.blueprint.classifier.image_size or stored_side(asked.tables.real)
    space = open_space(asked.settings, asked.blueprint, side)
    real = look_at_real(asked.tables, asked.chosen, space.embed, side)
    made = look_at_made(asked.tables, asked.chosen, space.embed, side)
    groups, seed = asked.groups, asked.blueprint.seed
    shown, of_made = _shown(real, made, asked.chosen, groups, seed)
    (axes, held), found = principal(real.features), {}
    for g, name in enumerate(groups.names):
        rng = np.random.default_rng([seed, 211, g])
        one, other = real.of(g), made.of(g)
        found[name] = {
            **shown[g],
            "distances": beside_floor(real.features[one], made.features[other], axes, rng),
            "spread": statistics.spreads(real.plain[one], made.plain[other], rng),
        }
    return {
        "rows": len(real.group) + len(made.group),
        "encoder": space.title,
        "independent": space.independent,
        "dimensions": real.features.shape[1],
        "principal": {"directions": axes.shape[1], "variance": held},
        "groups": found,
        "border": _borders(real, made, groups, seed),
        "unfaithful": [name for name in found if found[name]["unfaithful"]],
        "images": {"id": made.ids, "label": of_made[:, 0], "attribute": of_made[:, 1]},
    }


def _shown(
    real: Seen, made: Seen, chosen: Chosen, groups: Groups, seed: int
) -> tuple[list[dict[str, Any]], NDArray[np.bool_]]:
    """[G] how often label and attribute are recognised, and what the gate says of it.

    And [N, 2] of every generated image, whether they are.
    """
    known = torch.from_numpy(real.features)
    rng = np.random.default_rng([seed, 223])
    of_real = cross_fitted(known, real.group, groups, rng)
    probe = fit_probe(known, real.group, groups)
    of_made = probe.right(torch.from_numpy(made.features), made.group)
    kept = [of_made[made.of(g)] for g in range(groups.count)]
    held = [of_real[real.of(g)] for g in range(groups.count)]
    verdicts = judged([_count(each) for each in held], [_count(each) for each in kept], groups)
    found = []
    for g, verdict in enumerate(verdicts):
        rejected = of_made[(made.group == g) & ~made.kept]
        weights = (chosen.sizes_kept[g], chosen.sizes_rejected[g])
        found.append(
            {
                "agreement": {
                    "real": _shares([held[g]], [1]),
                    "candidates": _shares([kept[g], rejected], weights),
                    "kept": _shares([kept[g]], [1]),
                },
                "clusters": _of_clusters(of_made, made, g),
                "unfaithful": verdict.unfaithful,
                "needed": verdict.needed,
                "not_judged": verdict.reason,
            }
        )
    return found, of_made


def _count(right: NDArray[np.bool_]) -> Count:
    """Of the label; [n, 2] as `Probe.right`."""
    return Count(int(right[:, 0].sum()), len(right))


def _shares(parts: Sequence[NDArray[np.bool_]], sizes: Sequence[int]) -> dict[str, Any]:
    """Shares recognised of samples [n, 2] that stand for `sizes` images each."""
    there = [(part, size) for part, size in zip(parts, sizes, strict=True) if len(part)]
    images = sum(len(part) for part, _ in there)
    if not images:
        return {"images": 0, "label": None, "attribute": None, "both": None}
    means = [(*part.mean(axis=0), part.all(axis=1).mean()) for part, _ in there]
    shares = np.average(means, axis=0, weights=[size for _, size in there]).tolist()
    return {"images": images, **dict(zip(("label", "attribute", "both"), shares, strict=True))}


def _of_clusters(right: NDArray[np.bool_], made: Seen, group: int) -> dict[str, Any]:
    """Cluster -> agreement of its kept images; None: too few to tell."""
    own = made.of(group)
    clusters = {int(k): own[made.cluster[own] == k] for k in np.unique(made.cluster[own])}
    return {
        str(k): _shares([right[rows]], [1]) if len(rows) >= FEW else None
        for k, rows in clusters.items()
    }


def _borders(real: Seen, made: Seen, groups: Groups, seed: int) -> Mapping[str, Any]:
    """Attribute -> how well the label is told from the border alone, in real and kept images.

    What the background says of the label, where a class draws an attribute's look its own way, is a
    shortcut that synthesis made: real backgrounds of one attribute say as much as chance. Both
    sides: as many images of every label, accuracies of linear heads on other folds, labels equal.
    """
    found: dict[str, Any] = {}
    width = len(groups.attribute_names)
    for a, name in enumerate(groups.attribute_names):
        own = [groups.index(label, a) for label in range(len(groups.label_names))]
        size = min(len(side.of(g)) for side in (real, made) for g in own)
        rng = np.random.default_rng([seed, 227, a])
        told: dict[str, Any] = {"images": size, "real": None, "synthetic": None}
        if size >= FEW:
            for key, side in (("real", real), ("synthetic", made)):
                rows = np.concatenate([rng.permutation(side.of(g))[:size] for g in own])
                label = side.group[rows] // width
                ring = torch.from_numpy(side.border[rows])
                told[key] = told_apart(ring, label, len(own), rng)
        found[name] = told
    return found
