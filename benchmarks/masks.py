"""Masks of edited images: how well they part garment and ground, and what keeping more costs.

    python benchmarks/masks.py [--storage FOLDER] [--quick] [--severity 0.99] [--seed 5] [--seeds 2]
        [--only whole masked ...]

Outfits are composed, so the true place of every garment is known here (and only here). Of the
masks: overlap with the true ground (intersection over union), share of pure ground positions that
are kept, share of pure garment positions that are regenerated. Of the images: right garment and
ground by the judge, spread, copies, how often the nearest training image is the one that was
edited, and validation WGA of the configured classifier without a search. Test images are only what
the images' spread is compared with. `draws`: the overlap of unwidened masks against the noises that
they are averaged over. Exits 1 when the default has more than two copies in a hundred images, or
keeps more than five of a hundred positions of pure ground.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from candidates import (
    BATCH,
    QUICK,
    Observer,
    Real,
    draw,
    fine_tune,
    hash_of,
    load_real,
    prepared,
    sheet,
    validation_wga,
)
from measure import finish, parser

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.datasets.outfits import Outfits, place
from raysynth.groups.groups import aligned_groups
from raysynth.scoring.scorer import open_scorers
from raysynth.selection.copies import copy_thresholds, read_neighbours
from raysynth.storage.tables import encode_png
from raysynth.synthesis import masks
from raysynth.synthesis.contrast import contrasts
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.sources import deal_sources
from raysynth.synthesis.task import Drawing, Task

VARIANTS = {
    "whole": ["synthesis.mask=none"],
    "masked": [],
    "margin 0": ["synthesis.mask_margin=0", "synthesis.strength_outside=[0, 0]"],
    "outside 0": ["synthesis.strength_outside=[0, 0]"],
    "outside 0.35, guidance 2": [
        "synthesis.strength_outside=[0.35, 0.35]",
        "synthesis.guidance_scale=2",
    ],
    "outside 0.67": ["synthesis.strength_outside=[0.67, 0.67]"],
}
PURE = 0.1
"""Share of a latent position that may show the other thing."""
FEW = ["synthesis.images_per_group=400", "classifier.batch_size=64"]


def garments(ids: list[str], seed: int, severity: float, side: int) -> np.ndarray:
    """[N, side, side] share of every latent position that the garment covers."""
    outfits = Outfits(seed=seed, severity=severity)
    rows = {row["id"]: row for row in outfits.listing().to_pylist()}
    found = []
    chosen = [rows[name] for name in ids]
    cutouts = outfits.cutouts(np.array([row["garment"] for row in chosen]))
    for cutout, row in zip(cutouts, chosen, strict=True):
        alpha = np.asarray(place(cutout, row).getchannel("A")) / 255
        cell = len(alpha) // side
        found.append(alpha.reshape(side, cell, side, cell).mean((1, 3)))
    return np.stack(found)


def parted(config: Config, real: Real, work: Path, names: list[str], images: int) -> dict[str, Any]:
    """How the masks of some aligned images lie to the garments."""
    aligned = aligned_groups(real.counts, real.groups).tolist()
    told = contrasts(config.prompts, real.groups, real.counts)
    conflicting = [
        next(g for g in real.groups.of_label(y) if g != a) for y, a in enumerate(aligned)
    ]
    made = ImageGenerator(Drawing.of(config), str(work), names)
    found, covered = [], []
    for own, target in zip(aligned, conflicting, strict=True):
        rows = np.flatnonzero(real.group["train"] == own)[:images]
        ids = [real.ids["train"][row] for row in rows]
        png = pa.array([encode_png(real.pixels["train"][row]) for row in rows])
        for first in range(0, len(rows), BATCH):
            some = png[first : first + BATCH]
            empty, count = [""] * len(some), len(some)
            given = (empty, empty, names * count, list(range(count)), some, [told[target]] * count)
            (part,) = made.prepare(*given)
            edited = made._edited(part)
            assert edited is not None and edited.mask is not None
            found.append(edited.mask[:, 0].numpy() > 0)
        covered.append(
            garments(ids, config.seed, float(config.dataset.severity), found[0].shape[-1])
        )
    mask, garment = np.concatenate(found), np.concatenate(covered)
    ground = garment < 0.5
    return {
        "overlap": round(float((mask & ground).sum() / (mask | ground).sum()), 3),
        "ground_kept": round(float((~mask)[garment < PURE].mean()), 3),
        "garment_regenerated": round(float(mask[garment > 1 - PURE].mean()), 3),
    }


def by_draws(config: Config, real: Real, work: Path, names: list[str]) -> dict[int, float]:
    """Noises averaged over -> overlap of the masks, not widened, with the ground."""
    config = config.model_copy(
        update={"synthesis": config.synthesis.model_copy(update={"mask_margin": 0})}
    )
    usual, found = masks.MASK_DRAWS, {}
    for draws in (1, 2, 4, 8):
        masks.MASK_DRAWS = draws
        found[draws] = parted(config, real, work, names, 64)["overlap"]
    masks.MASK_DRAWS = usual
    return found


def copied(config: Config, real: Real, pixels: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """Per group: share of copies, and of images that are nearest to the one that was edited."""
    clusters = str(Path(real.folder).parent / "clusters")
    limits = copy_thresholds(config.selection, read_neighbours(clusters), real.groups)
    task = Task.of(config, real.groups, "", (), clusters)
    score = open_scorers(config.synthesis.scorers, task.scoring)
    scores = score(pixels, pa.table({"group": group}))
    nearest = scores["nearest"].to_numpy(zero_copy_only=False)
    similarity = scores["nearest_similarity"].to_numpy()
    dealt = deal_sources(real.clusters, real.groups, real.counts, config.seed)
    copies, sources = [], []
    for g in range(real.groups.count):
        mine = np.flatnonzero(group == g)
        near = nearest[mine]
        copies.append(round(float((similarity[mine] > limits[g]).mean()), 4))
        sources.append(round(float((near == np.resize(dealt[g], len(mine))).mean()), 4))
    return {"copies": copies, "nearest_is_source": sources}


def row(name: str, storage: Path, real: Real, observer: Observer, options: Any) -> dict[str, Any]:
    """All numbers of one variant."""
    settings = ["generator=edit", f"seed={options.seed}", f"dataset.severity={options.severity}"]
    settings += [*(QUICK if options.quick else FEW), *VARIANTS[name]]
    config = load_config(None, settings)
    work = storage / f"made-{options.severity:g}" / hash_of(config)
    adapters, _ = fine_tune(config, real, work)
    specs, pixels, spent = draw(config, real, work, adapters)
    group = specs["group"].to_numpy()
    sheet(pixels, group, storage / f"{name.replace(' ', '-')}.png")
    scores = validation_wga(config, real, pixels, specs, 1 if options.quick else options.seeds)
    found: dict[str, Any] = {"variant": name}
    if config.synthesis.mask != "none":
        images = 16 if options.quick else 100
        found |= parted(config, real, work, [a.name for a in adapters], images)
        if name == "masked" and not options.quick:
            found["draws"] = by_draws(config, real, work, [a.name for a in adapters])
    found |= {
        **observer.look(pixels, group),
        **copied(config, real, pixels, group),
        "images_per_cpu_second": round(len(pixels) / spent, 1),
        "validation_wga": scores,
        "mean_validation_wga": round(mean(scores), 3),
    }
    print(f"  {found}", file=sys.stderr)
    return found


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None, help="kept folder; default: new")
    options.add_argument("--severity", type=float, default=0.99)
    options.add_argument("--seed", type=int, default=5, help="of the data")
    options.add_argument("--seeds", type=int, default=2, help="of the classifier")
    options.add_argument("--only", nargs="*", default=list(VARIANTS))
    arguments = options.parse_args()
    torch.set_num_threads(1)
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-masks-"))
    real = load_real(prepared(storage, arguments.severity, arguments.seed))
    observer = Observer(load_config(), real)
    rows = [row(name, storage, real, observer, arguments) for name in arguments.only]
    bars = {}
    for each in rows:
        if each["variant"] == "masked":
            bars["at most 2 % copies"] = max(each["copies"]) <= 0.02
            bars["at most 5 % of pure ground kept"] = each["ground_kept"] <= 0.05
    numbers = {"severity": arguments.severity, "seed": arguments.seed, "rows": rows}
    finish("masks", numbers, {} if arguments.quick else bars, arguments.quick)


if __name__ == "__main__":
    main()
