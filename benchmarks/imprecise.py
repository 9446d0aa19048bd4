"""What a base, fine-tuned on outfits of which 10 % have an attribute, says of the other 90 %.

Severity 0.95: ten conflicting images of a class are known. The attributes are called "plain red"
and "plain blue", words that the base knows and that do not name the grounds. `recall`: share of
right attributes, mean over the groups of 80 training images each whose attribute is hidden, groups
alike in the prior too. `sure`: the share of these that the gate lets through after training, and
`right`: of these, the share that is right; both weighed as the groups are among the hidden images.
`answered`: what a run is told, by the method's own prior; of those that are said to conflict with
the bias, how many do. Arms: `dmis`; `alone`, hidden
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

STEPS, LONGER, QUICK_STEPS = 100, 200, 40
EACH, QUICK_EACH = 80, 30
"""Hidden images of a group."""
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
QUICK_ARMS = ("dmis", "alone")


def inferred_outfits(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    found: dict[str, float] = {}
    for arm in QUICK_ARMS if quick else ARMS:
        knobs = DmisKnobs(**{"steps": QUICK_STEPS if quick else STEPS, **ARMS[arm]})
        numbers = _of_arm(folder, seed, knobs, QUICK_EACH if quick else EACH)
        found |= {f"{arm}: {name}": value for name, value in numbers.items()}
    return {name: round(value, 4) for name, value in found.items()}


def _of_arm(folder: Path, seed: int, knobs: DmisKnobs, each: int) -> dict[str, float]:
    asked, truth = _asked(folder, seed, knobs.settled())
    model = Model(asked)
    train = _latents(model, asked.real)
    began = time.process_time()
    fit(model, train, seed)
    spent = time.process_time() - began
    hidden = train.take(train.rows(False))
    group = np.array([truth[name] for name in hidden.ids])
    rows = held_out(group, asked.groups.count, each, seed)
    share = np.bincount(group, minlength=asked.groups.count)[group[rows]]
    model.network.requires_grad_(False)
    numbers = _judged(model, train, hidden.take(rows), group[rows], share, seed)
    return numbers | {"CPU s": spent}


def _judged(
    model: Model, train: Latents, some: Latents, group: Any, share: Any, seed: int
) -> dict[str, float]:
    """What is said of hidden images; `share`: [N] hidden images of an image's group."""
    true, prior = group % model.width, model.prior

    def said(shares: Any, prior: Any) -> Any:
        model.prior = prior
        temperature = chosen_temperature(model, train, shares, seed)
        return posteriors(model, some, shares, temperature).numpy()

    alike, gate = said(LOOKS, None), said(MIDDLE, prior)
    answered = alike if prior is None else alike * prior[some.label].numpy()
    recall, answers = ([_mean(p, true, group == g) for g in range(4)] for p in (alike, answered))
    sure = share * (gate.max(1) >= DmisKnobs().confidence)
    conflict = share * (answered.argmax(1) != group // 2)  # class 0 goes with 0, 1 with 1
    return {
        "recall": float(np.mean(recall)),
        "worst recall": float(min(recall)),
        "sure": float(sure.sum() / share.sum()),
        "right": _mean(gate, true, sure),
        "answered: recall": float(np.mean(answers)),
        "answered: conflicting right": _mean(answered, true, conflict),
    }


def _mean(posterior: Any, true: Any, weight: Any) -> float:
    """Weighted share of images whose likeliest attribute is the true one."""
    return float((weight * (posterior.argmax(1) == true)).sum() / max(1, weight.sum()))


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
