"""What EfficientNet-Lite0 tells of small photographs, and what it is worth against a bias.

`probes`: linear probes of outfits (32 x 32 pixels, label and attribute unrelated) on frozen
features, by the side in pixels to which images are enlarged: percent right on test images, mean and
standard deviation over data seeds, and CPU milliseconds an image. First the base's CLIP, whose
training images were garments of the same kind.

`erm`, `heads`: WGA and AGA on test of outfits at severity 0.99, as the quickstart has them: plain
training from this start (mean and standard deviation over three trainings), and a balanced head on
the frozen features, its weight decay chosen by validation WGA; the same head on the base's CLIP.

    python benchmarks/imagenet.py [--quick] [--only probes|erm|heads] [--side 64]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import checkout  # noqa: F401
import numpy as np
import torch
from watermark import images

from raysynth.config.files import load_config
from raysynth.groups.balance import image_weights
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import GroupMetrics, group_metrics
from raysynth.heads.regression import fit_heads
from raysynth.models.clip import Embed, load_clip, of_planes
from raysynth.models.efficientnet_lite import MEAN, STD
from raysynth.models.encoder import load_encoder
from raysynth.models.processor import image_processor
from raysynth.models.settings import LITE, BaseConfigSection
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import Data, ImageSet
from raysynth.references.reference import REFERENCES, settings
from raysynth.training.fit import fit

SIDES = (32, 64, 96, 128)
SIDE = 64
"""To which images are enlarged in `erm` and `heads`."""
STEPS, SEEDS, BATCH = 100, 3, 64
PROBED = 400
"""Images of each split."""
BASE = BaseConfigSection(device="cpu", dtype="float32")
Splits = Mapping[str, ImageSet]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parts: dict[str, Callable[[argparse.Namespace], dict[str, dict[str, float | list[float]]]]] = {
        "probes": probes,
        "erm": erm,
        "heads": heads,
    }
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels, of erm and heads")
    given = parser.parse_args()
    chosen = [given.only] if given.only else [*parts]
    print(json.dumps({name: parts[name](given) for name in chosen}))


def probes(given: argparse.Namespace) -> dict[str, dict[str, float | list[float]]]:
    """Side -> percent of labels and of attributes told, milliseconds an image."""
    encoder = load_encoder(LITE, BASE)
    arms: dict[str, Embed] = {"the base's CLIP": load_clip(BASE).images}
    for side in SIDES[:2] if given.quick else SIDES:
        arms[f"{side}"] = replace(encoder, processor=image_processor(MEAN, STD, side)).images
    splits = [images(seed, 0.5, PROBED)[0] for seed in range(1 if given.quick else SEEDS)]
    found = {}
    for name, embed in arms.items():
        found[name] = over([probed(embed, split) for split in splits])
        print(f"{name}: {found[name]}", flush=True)
    return found


def probed(embed: Embed, split: Splits) -> dict[str, float]:
    """Percent of test images whose label and whose attribute probes tell; milliseconds an image."""
    data = {
        name: one.take(np.arange(len(one))[:: len(one) // PROBED]) for name, one in split.items()
    }
    start = time.process_time()
    seen = embedded(embed, data)
    taken = 1000 * (time.process_time() - start) / sum(map(len, data.values()))
    found = {}
    for what in ("label", "attribute"):
        told = {n: one.label if what == "label" else one.group % 2 for n, one in data.items()}
        right = [
            [float((said[n] == told[n]).mean()) for n in ("validation", "test")]
            for said in predicted(seen, told["train"], data["train"])
        ]
        found[what] = 100 * max(right)[1]
    return found | {"ms": taken}


def erm(given: argparse.Namespace) -> dict[str, dict[str, float | list[float]]]:
    """Plain training of all weights, its stopping point by validation."""
    steps = f"references.steps={8 if given.quick else STEPS}"
    asked = [f"classifier.backbone={LITE}", steps, "references.evaluations=2"]
    config = load_config(None, asked)
    real, groups = images(0, 0.99, 1000 if given.quick else 4000, given.side)
    data = Data(real["train"], real["validation"], real["train"].take(np.arange(0)), groups)
    references = config.references.settled(config.classifier)
    rows = []
    for seed in range(1 if given.quick else SEEDS):
        plan = REFERENCES["erm"].plan(references, settings(references)[0], seed)
        best, said = -1.0, np.zeros(0)
        for snapshot in fit(plan, data, blueprint_of(config)):
            if (score := snapshot.best()[1].score) > best:
                best, said = score, snapshot.network.predict(real["test"])
        rows.append(percent(scored(said, "test", real, groups)))
        print(f"erm, training {seed}: {rows[-1]}", flush=True)
    return {"erm": over(rows)}


def heads(given: argparse.Namespace) -> dict[str, dict[str, float | list[float]]]:
    """A balanced head on frozen features, as the controls of these models are."""
    real, groups = images(0, 0.99, 1000 if given.quick else 4000)
    at_side = image_processor(MEAN, STD, given.side)
    lite = replace(load_encoder(LITE, BASE), processor=at_side)
    arms: dict[str, Embed] = {LITE: lite.images, "the base's CLIP": load_clip(BASE).images}
    found = {}
    for name, embed in arms.items():
        tried = predicted(embedded(embed, real), real["train"].label, real["train"])
        best = max(
            tried, key=lambda said: scored(said["validation"], "validation", real, groups).score
        )
        found[name] = percent(scored(best["test"], "test", real, groups))
        print(f"balanced head, {name}: {found[name]}", flush=True)
    return found


def predicted(
    seen: Mapping[str, torch.Tensor], told: np.ndarray, train: ImageSet
) -> list[dict[str, np.ndarray]]:
    """Of each weight decay, split -> what a group-balanced head says of its features."""
    decays = load_config(None).references.head_weight_decays
    weights = image_weights(train.group, "balanced")
    fitted = fit_heads(seen["train"], told, weights, decays, 2)
    return [{name: head.predict(each) for name, each in seen.items()} for head in fitted]


def embedded(embed: Embed, data: Splits) -> dict[str, torch.Tensor]:
    """Split -> [N, D] features."""
    return {n: torch.from_numpy(of_planes(embed, one.pixels, BATCH)) for n, one in data.items()}


def scored(said: np.ndarray, split: str, real: Splits, groups: Groups) -> GroupMetrics:
    counts = real["train"].counts(groups.count)
    return group_metrics(said, real[split].label, real[split].group, counts)


def percent(found: GroupMetrics) -> dict[str, float]:
    return {"WGA": round(100 * found.wga, 1), "AGA": round(100 * found.aga, 1)}


def over(rows: Sequence[Mapping[str, float]]) -> dict[str, float | list[float]]:
    """Mean and standard deviation of each number."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {
        k: [round(float(np.mean(v)), 1), round(float(np.std(v)), 1)] for k, v in columns.items()
    }


if __name__ == "__main__":
    main()
