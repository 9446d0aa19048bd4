"""What a base, fine-tuned on outfits of which 10 % have an attribute, says of the other 90 %.

Severity 0.95: ten conflicting images of a class are known. The attributes are called "plain red"
and "plain blue", words that the base knows and that do not name the grounds. `recall`: share of
right attributes, mean over the groups of 80 training images each whose attribute is hidden. `sure`:
the share of these that the gate lets through after training, and `right`: of these, the share that
is right; both weighed as the groups are among the hidden images. Arms: `dmis`; `alone`, hidden
images are learnt without attribute, and `longer`, the same at dmis' CPU time; `gated`, the
likeliest attribute for the mixture and no classification loss; `published`, their settings.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from separation import held_out
from workload import write_real

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.grouping.generative import (
    LOOKS,
    MIDDLE,
    Asked,
    Latents,
    Model,
    chosen_temperature,
    fit,
    posteriors,
    read_latents,
)
from raysynth.grouping.methods.dmis import DmisKnobs
from raysynth.groups.groups import Groups

STEPS, LONGER, QUICK_STEPS, EACH = 100, 200, 40, 80
DATA = {
    "severity": 0.95,
    "hidden_attributes": 0.9,
    "attribute_words": {"grass": "plain red", "gravel": "plain blue"},
}
ARMS: dict[str, dict[str, Any]] = {
    "dmis": {},
    "alone": {"warm_up": 1.0},
    "gated": {"hard": True, "classification_weight": 0.0},
    "longer": {"warm_up": 1.0, "steps": LONGER},
    "published": {"published": True},
}
QUICK_ARMS = ("dmis", "alone", "gated")


def inferred_outfits(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    found: dict[str, float] = {}
    for arm in QUICK_ARMS if quick else ARMS:
        knobs = DmisKnobs(**{"steps": QUICK_STEPS if quick else STEPS, **ARMS[arm]})
        found |= {f"{arm}: {name}": value for name, value in _of_arm(folder, seed, knobs).items()}
    return {name: round(value, 4) for name, value in found.items()}


def _of_arm(folder: Path, seed: int, knobs: DmisKnobs) -> dict[str, float]:
    asked, truth = _asked(folder, seed, knobs.settled())
    model = Model(asked)
    train = _latents(model, asked.real)
    began = time.process_time()
    fit(model, train, seed)
    spent = time.process_time() - began
    hidden = train.take(train.rows(False))
    group = np.array([truth[name] for name in hidden.ids])
    rows = held_out(group, asked.groups.count, EACH, seed)
    share = np.bincount(group, minlength=asked.groups.count)[group[rows]]
    some, attribute = hidden.take(rows), group[rows] % model.width
    model.network.requires_grad_(False)
    right = {}
    for shares in (LOOKS, MIDDLE):
        temperature = chosen_temperature(model, train, shares, seed)
        posterior = posteriors(model, some, shares, temperature)
        right[shares] = (posterior.argmax(1).numpy() == attribute, posterior.amax(1).numpy())
    by_group = [right[LOOKS][0][group[rows] == g].mean() for g in range(asked.groups.count)]
    sure = right[MIDDLE][1] >= DmisKnobs().confidence
    weight = share * sure
    return {
        "recall": float(np.mean(by_group)),
        "worst recall": float(np.min(by_group)),
        "sure": float(weight.sum() / share.sum()),
        "right": float((weight * right[MIDDLE][0]).sum() / max(1, weight.sum())),
        "temperature": temperature,
        "CPU s": spent,
    }


@cache
def _real(folder: Path, seed: int) -> tuple[Config, Groups, str, dict[str, int]]:
    """The configuration, its groups, the real table of training, and id -> true group."""
    config = Config.model_validate({"seed": seed, "dataset": DATA, "grouping": {"method": "dmis"}})
    data, groups, listing = list_dataset(config.dataset, seed)
    train = listing.filter(pc.equal(listing["split"], "train"))
    real = folder / f"imprecise-{seed}"
    if not real.exists():
        write_real(real, data, groups, train)
    true = train["label"].to_numpy() * len(groups.attribute_names) + train["ground"].to_numpy()
    truth = dict(zip(train["id"].to_pylist(), true.tolist(), strict=True))
    return config, groups, str(real), truth


def _asked(folder: Path, seed: int, knobs: DmisKnobs) -> tuple[Asked, dict[str, int]]:
    config, groups, real, truth = _real(folder, seed)
    told = (config.base, config.prompts, knobs, seed)
    return Asked(real, groups, ("train",), *told), truth


_READ: dict[str, Latents] = {}


def _latents(model: Model, real: str) -> Latents:
    """The images of training, encoded once: no arm trains the autoencoder."""
    if real not in _READ:
        _READ[real] = read_latents(model, real, "train")
    return _READ[real]
