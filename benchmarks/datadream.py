"""DataDream on outfits: the weight of real images in a joint training, and adapters of few shots.

`joint`: severity 0.95, a LoRA per group, 500 images of each; the small network trained 200 steps on
real and synthetic images together, half of every batch each, for each weight of the real ones;
stopped by validation, two trainings. `shots`: adapters of 16 images of each group, with and without
one on the text encoder, drawn from pure noise; over what the untrained base's images have: the mean
CLIP distance (1 - cosine) of their images to held-out ones of the group, the gap between the means
of both, and that of the mean colours. `real`: the 16 images themselves, so what can be reached.
Only in full runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from candidates import Real, draw, fine_tune, image_set
from workload import write_real

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.generators.recipe import recipe_of
from raysynth.groups.metrics import group_metrics
from raysynth.models.clip import load_clip
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import Data, ImageSet
from raysynth.storage.tables import decode_bytes
from raysynth.training.fit import fit
from raysynth.training.two_stage import configured, plan_of

WEIGHTS = (0.0, 0.25, 0.5, 0.8, 1.0)
SHOTS, STEPS, TRAININGS = 16, 200, 2
JOINT = {"schedule": "joint", "joint_means": True, "steps": STEPS, "ratio": 0.5}
ALL = [*((f"{w:g}", w, 0.0) for w in WEIGHTS), ("0.8, mixed", 0.8, 0.2)]
"""(Name, weight of the real images, share of mixed batches)."""
FROM_NOISE = {"gaussian_above": 1.0, "guidance": ["classifier_free"], "steps": 6}


def dreamt(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    found = joint(folder, seed, quick)
    found |= {} if quick else shots(folder, seed)
    return {name: round(value, 4) for name, value in found.items()}


def joint(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """WGA on validation and test, and AGA, by weight of the real images."""
    made = {"images_per_group": 150 if quick else 500}
    config = config_of(seed, {"severity": 0.95}, "lora", made, **({"steps": 60} if quick else {}))
    real, test = real_of(config, folder)
    specs, pixels = drawn(config, real, folder)
    group = specs["group"].to_numpy()
    made_set = image_set(pixels, group, specs["id"].to_pylist(), real.groups)
    train, validation = (images_of(real, split) for split in ("train", "validation"))
    data = Data(train, validation, made_set, real.groups)
    found: dict[str, float] = {}
    arms = [(f"{w:g}", w, 0.0) for w in (0.0, 0.5, 1.0) if quick] or ALL
    for name, weight, mix in arms:
        tuned = JOINT | {"real_share": weight, "mix": mix}
        rows = [
            _trained(
                config.model_copy(update={"classifier": tuned_of(config, tuned)}), data, test, n
            )
            for n in range(1 if quick else TRAININGS)
        ]
        for number, what in enumerate(("validation", "WGA", "AGA")):
            found[f"{what} {name}"] = mean(row[number] for row in rows)
    return found


def tuned_of(config: Config, values: dict[str, Any]) -> Any:
    """The classifier's section with other values."""
    return type(config.classifier).model_validate(config.classifier.model_dump() | values)


def _trained(config: Config, data: Data, test: ImageSet, seed: int) -> tuple[float, float, float]:
    """Validation WGA, test WGA and AGA of the snapshot that validation likes best."""
    plan = plan_of(configured(config.classifier), config.classifier, seed)
    counts, best = data.train.counts(data.groups.count), None
    for snapshot in fit(plan, data, blueprint_of(config)):
        score = snapshot.best()[1]
        if best is None or score.score > best[0].score:
            predicted = snapshot.network.predict(test)
            best = score, group_metrics(predicted, test.label, test.group, counts)
    assert best is not None
    return best[0].wga, best[1].wga, best[1].aga


def shots(folder: Path, seed: int) -> dict[str, float]:
    """Distances of few-shot adapters' images to held-out ones, over the base's."""
    arms: dict[str, dict[str, Any]] = {
        "vanilla": {},
        "adapters": {},
        "with text": {"text_encoder": True},
    }
    found: dict[str, dict[str, float]] = {}
    dataset = {"severity": 0.95, "shots": SHOTS}
    for arm, tuned in arms.items():
        generator = "vanilla" if arm == "vanilla" else "lora"
        made = FROM_NOISE | {"images_per_group": 64}
        config = config_of(seed, dataset, generator, made, **tuned)
        real, test = real_of(config, folder)
        specs, pixels = drawn(config, real, folder)
        held = test.pixels.transpose(0, 2, 3, 1)
        found[arm] = distances(config, pixels, specs["group"].to_numpy(), held, test.group)
        own, group = real.pixels["train"], real.group["train"]
        found["real"] = distances(config, own, group, held, test.group)
    plain = found.pop("vanilla")
    return {
        f"{arm}: {what} / vanilla": value / plain[what]
        for arm, each in found.items()
        for what, value in each.items()
    }


def distances(
    config: Config, made: np.ndarray, group: np.ndarray, held: np.ndarray, held_group: np.ndarray
) -> dict[str, float]:
    """Means over groups of what the first lines of this file say."""
    clip, pairs, gaps, colours = load_clip(config.base), [], [], []
    for g in np.unique(group):
        mine, others = made[group == g], held[held_group == g]
        ours, theirs = clip.images(mine), clip.images(np.ascontiguousarray(others))
        pairs.append(float((1 - ours @ theirs.T).mean()))
        gaps.append(float(np.linalg.norm(ours.mean(0) - theirs.mean(0))))
        colours.append(float(np.linalg.norm(mine.mean((0, 1, 2)) - others.mean((0, 1, 2)))))
    return {"distance": mean(pairs), "gap": mean(gaps), "colour gap": mean(colours)}


def config_of(
    seed: int,
    dataset: dict[str, Any],
    generator: str,
    synthesis: dict[str, Any],
    **finetune: Any,
) -> Config:
    given = {"seed": seed, "generator": generator, "dataset": dataset, "finetune": finetune}
    return Config.model_validate({**given, "synthesis": synthesis})


def real_of(config: Config, folder: Path) -> tuple[Real, ImageSet]:
    """The real images of a configuration, a cluster for each group; and those of test."""
    return _real_of(config.dataset.model_dump_json(), config.seed, str(folder))


@cache
def _real_of(dataset: str, seed: int, folder: str) -> tuple[Real, ImageSet]:
    section = type(Config().dataset).model_validate_json(dataset)
    data, groups, listing = list_dataset(section, seed)
    place = Path(folder) / f"datadream-{section.severity}-{section.shots}-{seed}"
    parts = {
        s: listing.filter(pc.equal(listing["split"], s)) for s in ("train", "validation", "test")
    }
    if not place.exists():
        write_real(place, data, groups, parts["train"])
    pixels = {s: decode_bytes(pa.array(data.images(part))) for s, part in parts.items()}
    group = {s: part["group"].to_numpy() for s, part in parts.items()}
    ids = {s: part["id"].to_pylist() for s, part in parts.items()}
    one = np.zeros_like(group["train"])
    clusters = pa.table({"id": ids["train"], "group": group["train"], "cluster": one})
    real = Real(str(place), clusters, groups, pixels, group, ids)
    return real, images_of(real, "test")


def images_of(real: Real, split: str) -> ImageSet:
    found: ImageSet = image_set(real.pixels[split], real.group[split], real.ids[split], real.groups)
    return found


def drawn(config: Config, real: Real, folder: Path) -> tuple[pa.Table, np.ndarray]:
    """Specs and images of a configuration's generator, which is trained."""
    shots = config.dataset.shots
    text = "-text" if config.finetune.text_encoder else ""
    work = folder / f"datadream-{config.generator}{text}-{shots}-{config.seed}"
    adapters: Sequence[Any] = []
    if recipe_of(config).training is not None:
        adapters, _ = fine_tune(config, real, work)
    work.mkdir(parents=True, exist_ok=True)
    specs, pixels, _ = draw(config, real, work, list(adapters))
    return specs, pixels
