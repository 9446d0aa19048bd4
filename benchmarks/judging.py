"""The Diffusion Classifier on real images of outfits, whose groups are known, beside CLIP.

60 test images of each group. Accuracies: of the group, label and attribute that the base explains
an image best under. `shared`, `independent`: group accuracy at four timesteps around the middle,
all prompts with the same noise or each with its own. `purity`: 20 % of the labels are wrong, the
best 80 % of each group by a score are kept, and so many of these are right; 20 relabellings.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from separation import AT_ONCE, held_out

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.groups.prompts import spoken
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.models.denoiser import Denoiser
from raysynth.models.latents import encode
from raysynth.models.likelihood import Measure, noise_of, step_errors
from raysynth.models.loading import round_weights
from raysynth.scoring.judged import judged
from raysynth.scoring.scorers.diffusion_classifier import DiffusionClassifierKnobs
from raysynth.selection.rule import SCORES
from raysynth.selection.settings import SelectionConfig
from raysynth.storage.tables import decode_bytes

EACH, QUICK_EACH, CENTROIDS = 60, 30, 200
MIDDLE = tuple((k + 0.5) / 16 for k in (6, 7, 8, 9))
WRONG, KEPT, RELABELLINGS = 0.2, 0.8, 20


class Outfits:
    """Test images with their latents, the base that judges, and CLIP's vectors."""

    def __init__(self, seed: int, each: int) -> None:
        config = Config.model_validate({"seed": seed, "dataset": {"severity": 0.99}})
        data, groups, listing = list_dataset(config.dataset, seed)
        parts = {s: listing.filter(pc.equal(listing["split"], s)) for s in ("train", "test")}
        found: dict[str, tuple[np.ndarray, np.ndarray, list[str]]] = {}
        for split, count in (("train", CENTROIDS), ("test", each)):
            group = parts[split]["group"].to_numpy()
            rows = held_out(group, groups.count, count, seed)
            table = parts[split].take(rows)
            pixels = decode_bytes(pa.array(data.images(table)))
            found[split] = (pixels, group[rows], table["id"].to_pylist())
        pixels, self.group, ids = found["test"]
        self.names, self.count = [f"{seed}/{name}" for name in ids], groups.count
        base, clip = load_base(config.base), load_clip(config.base)
        round_weights(base.model, base.dtype)
        prompts = [spoken(config.prompts, groups, g, token="") for g in range(groups.count)]
        self.denoise, self.told = Denoiser(base, base.model), base.condition(prompts)
        self.clean = torch.cat([encode(base, some) for some in np.array_split(pixels, 8)])
        shown, known = clip.images(pixels), clip.images(found["train"][0])
        centroids = np.stack([known[found["train"][1] == g].mean(0) for g in range(groups.count)])
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        self.label, self.centroid = shown @ clip.texts(prompts).T, shown @ centroids.T

    @torch.inference_mode()
    def errors(self, shares: Any, names: list[str], told: torch.Tensor | None = None) -> np.ndarray:
        """[N, G, K] of `step_errors` with the noise of these names."""
        noise = noise_of(names, range(len(shares)), self.clean[0].shape)
        how = Measure(at_once=AT_ONCE)
        given = (self.denoise, self.clean, self.told, torch.tensor(shares), noise, told, how)
        return step_errors(*given).numpy()


def judged_outfits(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    outfits = Outfits(seed, QUICK_EACH if quick else EACH)
    knobs = DiffusionClassifierKnobs()
    even = [(k + 0.5) / knobs.timesteps for k in range(knobs.timesteps)]
    errors = outfits.errors(even, outfits.names).mean(-1)
    best, group = errors.argmin(1), outfits.group
    found = {
        "group": np.mean(best == group),
        "label": np.mean(best // 2 == group // 2),
        "attribute": np.mean(best % 2 == group % 2),
        "clip's group": np.mean(outfits.label.argmax(1) == group),
        **_noises(outfits),
        **_stages(outfits, knobs, best, _relabelled(outfits, np.random.default_rng([seed, 0]))),
        **_purities(outfits, errors, seed),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def _noises(outfits: Outfits) -> dict[str, Any]:
    """Group accuracies with one noise for all prompts, and with one for each."""
    shared = outfits.errors(MIDDLE, outfits.names).mean(-1)
    each = []
    for g in range(outfits.count):
        told = torch.full((len(outfits.group), 1), g)
        own = [f"{name}/{g}" for name in outfits.names]
        each.append(outfits.errors(MIDDLE, own, told).mean(-1))
    independent = np.concatenate(each, 1)
    return {
        "shared": np.mean(shared.argmin(1) == outfits.group),
        "independent": np.mean(independent.argmin(1) == outfits.group),
    }


@torch.inference_mode()
def _stages(
    outfits: Outfits, knobs: DiffusionClassifierKnobs, full: np.ndarray, given: np.ndarray
) -> dict[str, Any]:
    """How often the stages end where all groups at all timesteps do; `given`: the own groups."""
    noise = noise_of(outfits.names, range(knobs.timesteps), outfits.clean[0].shape)
    seen = (outfits.denoise, outfits.clean, outfits.told, noise, knobs.times(), knobs.keep)
    judge = partial(judged, *seen, how=Measure(at_once=AT_ONCE))
    asked = judge(own=torch.from_numpy(given).long()).group.numpy()
    return {
        "staged, as all": np.mean(asked == full),
        "staged, nobody's own, as all": np.mean(judge().group.numpy() == full),
        "staged group": np.mean(asked == outfits.group),
    }


def _purities(outfits: Outfits, errors: np.ndarray, seed: int) -> dict[str, Any]:
    """Share of right labels among those kept, by score."""
    found: dict[str, list[float]] = {}
    config, rows = SelectionConfig(), np.arange(len(errors))
    for number in range(RELABELLINGS):
        given = _relabelled(outfits, np.random.default_rng([seed, number]))
        right, own = given == outfits.group, errors[rows, given]
        rival = np.where(np.eye(outfits.count, dtype=bool)[given], np.inf, errors).min(1)
        columns = {
            "clip_label": outfits.label[rows, given],
            "clip_centroid": outfits.centroid[rows, given],
            "dc_margin": rival - own,
        }
        scores = {
            "clip": SCORES["clip"].of(columns, config),
            "margin": SCORES["diffusion_classifier"].of(columns, config),
            "both": SCORES["both"].of(columns, config),
            "own error": -own,
        }
        found.setdefault("nothing", []).append(right.mean())
        for name, score in scores.items():
            found.setdefault(name, []).append(right[_kept(score, given)].mean())
    return {f"purity: {name}": np.mean(values) for name, values in found.items()}


def _relabelled(outfits: Outfits, dice: np.random.Generator) -> np.ndarray:
    """[N] groups, some of them wrong."""
    count = len(outfits.group)
    other = (outfits.group + dice.integers(1, outfits.count, count)) % outfits.count
    return np.where(dice.random(count) < WRONG, other, outfits.group)


def _kept(score: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Row numbers of the best share of every group."""
    parts = []
    for g in np.unique(given):
        rows = np.flatnonzero(given == g)
        parts.append(rows[np.argsort(-score[rows], kind="stable")[: round(KEPT * len(rows))]])
    return np.concatenate(parts)
