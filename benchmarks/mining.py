"""What a biased network finds on outfits, whose attributes are known: by GCE and by CE.

`P@K`: of the K training images of each class that are misread most, K the true number, how many
conflict; the worse class, after two lengths of training. `synthetic`, `synthetic ce`: the same of
networks that learnt images drawn by class alone (`drawn s`: CPU seconds of that; not `--quick`).
`recall`, `precision`: of the number that is found, worse class; `words`: whether the two words are
the grounds. `validation`, of its images: share in the right group.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from workload import write_real

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.grouping.biased import Asked, biased_network, mined
from raysynth.grouping.generated import drawn_images
from raysynth.grouping.methods.conflict_mining import EMBEDDED_WORDS, ConflictMiningKnobs
from raysynth.grouping.mining import log_odds
from raysynth.groups.groups import Groups
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import ImageSet
from raysynth.storage.tables import decode_bytes

LENGTHS = (300, 420)


def mined_outfits(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    config = Config.model_validate({"seed": seed, "dataset": {"severity": 0.99}})
    data, groups, listing = list_dataset(config.dataset, seed)
    parts = {s: listing.filter(pc.equal(listing["split"], s)) for s in ("train", "validation")}
    truth = {name: part["group"].to_numpy() for name, part in parts.items()}
    train = _images(data, parts["train"])
    real = Path(tempfile.mkdtemp(dir=folder)) / "real"
    for name, part in parts.items():
        write_real(real, data, groups, part)
        (real / "train-00000.parquet").rename(real / f"{name}-0.parquet")
    arms, spent = {"gce": (train, 0.7), "ce": (train, None)}, {}
    if not quick:  # with fewer steps the base draws grounds of its own
        began, asked = time.process_time(), ConflictMiningKnobs(biased_on="synthetic")
        drawn = drawn_images(str(real), train, groups, config.prompts, config.base, asked, seed)
        spent = {"drawn s": time.process_time() - began}
        arms |= {"synthetic": (drawn, 0.7), "synthetic ce": (drawn, None)}
    found = {
        f"{name} P@K, {steps} steps": _precision(learnt, train, groups, config, steps, q)
        for steps in (LENGTHS[:1] if quick else LENGTHS)
        for name, (learnt, q) in arms.items()
    }
    told = (blueprint_of(config), config.prompts, ConflictMiningKnobs(), EMBEDDED_WORDS)
    given = mined(Asked(str(real), groups, tuple(parts), *told), 1.0)
    found |= spent | _judged(given, parts, truth, groups)
    return {name: round(float(value), 4) for name, value in found.items()}


def _images(data: Any, rows: pa.Table) -> ImageSet:
    pixels = decode_bytes(pa.array(data.images(rows))).transpose(0, 3, 1, 2)
    label, group = (rows[name].to_numpy().astype(np.int64) for name in ("label", "group"))
    return ImageSet(np.ascontiguousarray(pixels), label, group, np.array(rows["id"].to_pylist()))


def _conflicts(group: np.ndarray, groups: Groups) -> np.ndarray:
    """[N] whether images are in the smaller group of their class."""
    counts = np.bincount(group, minlength=groups.count).reshape(len(groups.label_names), -1)
    return counts.argmax(axis=1)[group // 2] != group % 2


def _precision(
    learnt: ImageSet, train: ImageSet, groups: Groups, config: Config, steps: int, q: float | None
) -> float:
    """Of the K that are misread most, the share that conflicts; the worse class."""
    knobs = ConflictMiningKnobs(steps=steps)
    network = biased_network(learnt, groups, blueprint_of(config), knobs, q)
    odds = log_odds(network.outputs(train)[1].cpu().numpy(), train.label)
    conflict, found = _conflicts(train.group, groups), []
    for label in range(len(groups.label_names)):
        rows = np.flatnonzero(train.label == label)
        top = rows[np.argsort(-odds[rows], kind="stable")[: conflict[rows].sum()]]
        found.append(conflict[top].mean())
    return float(min(found))


def _judged(
    given: Any, parts: dict[str, pa.Table], truth: dict[str, np.ndarray], groups: Groups
) -> dict[str, float]:
    """Recall, precision and words of the number that is found, and validation's groups."""
    named = replace(groups, attribute_names=given.words)
    words = sorted(given.words) == sorted(groups.attribute_names)
    of = dict(zip(given.ids, given.attribute.tolist(), strict=True))
    right: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        spoken = [named.attribute_names[of[i]] for i in part["id"].to_pylist()]
        true = [groups.attribute_names[g] for g in (truth[name] % 2).tolist()]
        right[name] = np.array([one == other for one, other in zip(spoken, true, strict=True)])
    conflict, label = _conflicts(truth["train"], groups), truth["train"] // 2
    recall, precision = [], []
    for y in range(len(groups.label_names)):
        mine = label == y
        kept = mine & (conflict == right["train"])  # found on the conflicting side
        recall.append((kept & conflict).sum() / (mine & conflict).sum())
        precision.append((kept & conflict).sum() / max(1, kept.sum()))
    return {
        "recall": min(recall),
        "precision": min(precision),
        "words": float(words),
        "validation": float(right["validation"].mean()),
    }
