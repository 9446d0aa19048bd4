"""CLIP as a classifier of outfits at severity 0.99, with images that the base draws unasked.

`frozen`: heads on its image embedding, on real and synthetic images, as `clip_vanilla` of the main
table: every weight decay with every share of the real ones, the best by validation. `adapted`: LoRA
on both towers, trained on both kinds of images together (`clip_lora`, joint), the weight of the
real ones by validation; `adapted, real`: on real images alone. WGA and AGA on test.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from candidates import image_set
from datadream import config_of, drawn, images_of, real_of, tuned_of

from raysynth.config.config import Config
from raysynth.groups.metrics import GroupMetrics, group_metrics
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import Data, ImageSet
from raysynth.training.fit import Snapshot, fit
from raysynth.training.two_stage import configured, plan_of

SHARES = (1.0, 0.5, 0.2, 0.0)
WEIGHTS = (0.2, 0.5, 0.8)
FROZEN = {"backbone": "clip", "steps": 0, "ratio": 0.3}
ADAPTED = {
    "backbone": "clip_lora",
    "schedule": "joint",
    "joint_means": True,
    "ratio": 0.3,
    "steps": 200,
    "learning_rate": 3e-4,
}


def adapted(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    made = {"images_per_group": 100 if quick else 300}
    config = config_of(seed, {"severity": 0.99}, "vanilla", made)
    real, test = real_of(config, folder)
    specs, pixels = drawn(config, real, folder)
    ids, group = specs["id"].to_pylist(), specs["group"].to_numpy()
    train, validation = (images_of(real, split) for split in ("train", "validation"))
    data = Data(train, validation, image_set(pixels, group, ids, real.groups), real.groups)
    steps = {"steps": 60} if quick else {}
    arms: dict[str, list[dict[str, Any]]] = {
        "frozen": [FROZEN],
        "adapted": [ADAPTED | steps | {"real_share": weight} for weight in WEIGHTS],
        "adapted, real": [ADAPTED | steps | {"ratio": 0.0, "joint_means": False}],
    }
    found: dict[str, float] = {}
    for arm, settings in arms.items():
        rows = [_best(_of(config, values), data, test) for values in settings]
        validated, tested = max(rows, key=lambda row: row[0].score)
        found |= {f"{arm}: validation": validated.wga, f"{arm}: WGA": tested.wga}
        found[f"{arm}: AGA"] = tested.aga
    return {name: round(value, 4) for name, value in found.items()}


def _of(config: Config, values: dict[str, Any]) -> Config:
    return config.model_copy(update={"classifier": tuned_of(config, values)})


def _best(config: Config, data: Data, test: ImageSet) -> tuple[GroupMetrics, GroupMetrics]:
    """Metrics on validation and test of the head and snapshot that validation likes best."""
    heads = [(decay, share) for decay in config.search.head_weight_decays for share in SHARES]
    plan = plan_of(configured(config.classifier), config.classifier, heads=heads)
    counts = data.train.counts(data.groups.count)
    tested = (
        (score, group_metrics(_predicted(snapshot, name, test), test.label, test.group, counts))
        for snapshot, name, score in _improving(fit(plan, data, blueprint_of(config)))
    )
    *_, last = tested
    return last


def _improving(snapshots: Iterable[Snapshot]) -> Iterable[tuple[Snapshot, str, GroupMetrics]]:
    """Snapshots whose best head is better than those before, with it."""
    top = -1.0
    for snapshot in snapshots:
        name, score = snapshot.best()
        if score.score > top:
            top = score.score
            yield snapshot, name, score


def _predicted(snapshot: Snapshot, name: str, images: ImageSet) -> Any:
    head = snapshot.fitted[name].head
    if head is None:
        return snapshot.network.predict(images)
    return head.predict(snapshot.network.outputs(images)[0])
