"""Why generated images have a mark in their files and none in their pixels.

A classifier is trained on real images (outfits at 0.99) filled up by generated ones to equal groups
(USB). In place of a generator stand other photographs of the same kind, so that nothing tells them
apart but a watermark: a fixed pattern of plus or minus some grey levels, in all of these and in no
real image. Test images have none.

    python benchmarks/watermark.py [--quick]

`told`: how well a logistic regression on pixels tells marked images from real ones (held out).
"""

from __future__ import annotations

import argparse
import json

import checkout  # noqa: F401
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.linear_model import LogisticRegression

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import group_metrics
from raysynth.heads.spec import TRAINED
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import Data, ImageSet
from raysynth.storage.tables import decode_bytes
from raysynth.training.fit import fit
from raysynth.training.plan import Phase, Plan

LEVELS = (0, 2, 4, 8)
STEPS, SEEDS, TRAIN = 200, 2, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    seeds, steps = (1, 60) if quick else (SEEDS, STEPS)
    found = {}
    for level in (0, 4) if quick else LEVELS:
        runs = [one(level, seed, steps) for seed in range(seeds)]
        found[level] = {
            name: [round(100 * float(np.mean(v)), 1), round(100 * float(np.std(v)), 1)]
            for name, v in {key: [run[key] for run in runs] for key in runs[0]}.items()
        }
        print(f"+-{level} grey levels: {found[level]}", flush=True)
    print(json.dumps({"steps": steps, "seeds": seeds, "percent": found}))


def one(level: int, seed: int, steps: int) -> dict[str, float]:
    """Test WGA and AGA of a training with a watermark of so many grey levels; how well it shows."""
    real, groups = images(seed, 0.99, TRAIN)
    others, _ = images(seed + 100, 0.5, TRAIN)
    made = marked(others["train"], level)
    data = Data(real["train"], real["validation"], made, groups)
    config = Config.model_validate({"seed": seed})
    plan = Plan((Phase("usb", steps, 3e-3, 0.1),), (TRAINED,), seed=seed)
    best, scored = None, -1.0
    for snapshot in fit(plan, data, blueprint_of(config)):
        if (score := snapshot.best()[1].score) > scored:
            scored, best = score, snapshot.network.outputs(real["test"])[1].argmax(1).cpu().numpy()
    test, counts = real["test"], real["train"].counts(groups.count)
    measured = group_metrics(test.label, best, test.group, counts)
    return {"wga": measured.wga, "aga": measured.aga, "told": told(others["validation"], level)}


def images(
    seed: int, severity: float, train: int, side: int | None = None
) -> tuple[dict[str, ImageSet], Groups]:
    """Split -> images of outfits at a severity; `side`: to which they are enlarged, pixels."""
    asked = {"severity": severity, "train_images": train}
    config = Config.model_validate({"seed": seed, "dataset": asked})
    data, groups, listing = list_dataset(config.dataset, seed)
    found = {}
    for split in ("train", "validation", "test"):
        rows = listing.filter(pc.equal(listing["split"], split))
        pixels = decode_bytes(pa.array(data.images(rows)), side).transpose(0, 3, 1, 2)
        columns = [rows[name].to_numpy().astype(np.int64) for name in ("label", "group")]
        found[split] = ImageSet(pixels, *columns, np.array(rows["id"].to_pylist()))
    return found, groups


def marked(whole: ImageSet, level: int) -> ImageSet:
    """The images with the watermark."""
    pattern = np.random.default_rng(7).choice([-level, level], whole.pixels.shape[1:])
    pixels = np.clip(whole.pixels.astype(int) + pattern, 0, 255).astype(np.uint8)
    return ImageSet(pixels, whole.label, whole.group, whole.ids)


def told(whole: ImageSet, level: int) -> float:
    """Share of images, half of them marked, that a linear probe tells rightly; held out."""
    both = np.concatenate([whole.pixels, marked(whole, level).pixels]).reshape(2 * len(whole), -1)
    which = np.repeat([0, 1], len(whole))
    first = np.tile(np.arange(len(whole)) % 2 == 0, 2)
    probe = LogisticRegression(C=0.01, max_iter=200).fit(both[first] / 255, which[first])
    return float(probe.score(both[~first] / 255, which[~first]))


if __name__ == "__main__":
    main()
