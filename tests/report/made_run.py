"""A small finished run, made by hand: real Parquet and JSON in the stages' own formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.evaluation.results import PREDICTIONS
from raysynth.groups.groups import Groups
from raysynth.method import FOLDERS
from raysynth.pipeline import open_run
from raysynth.scoring.columns import SYNTHETIC
from raysynth.stages.run import Run
from raysynth.storage.hashes import sha256_of
from raysynth.storage.tables import REAL, encode_png, with_groups, write_table
from raysynth.synthesis.shards import ShardRecord, write_manifest
from raysynth.synthesis.timeline import SPAN, utilisation, write_timeline

GROUPS = Groups(
    ("pullover", "coat"), ("grass", "gravel"), ("pullover", "coat"), ("grass", "gravel")
)
COUNTS = {"train": (30, 4, 3, 40), "validation": (4, 4, 4, 4), "test": (6, 6, 6, 6)}
CLUSTERS = (2, 1, 1, 3)
CANDIDATES = 12
# Mean test accuracy of each group: wga, aga and weighted below follow from these.
ACCURACY = {
    "erm": (0.99, 0.05, 0.10, 0.98),
    "resampling": (0.90, 0.30, 0.40, 0.92),
    "group_dro": (0.88, 0.32, 0.45, 0.90),
    "erm_balanced_head": (0.91, 0.52, 0.60, 0.93),
    "dfr_validation": (0.89, 0.70, 0.72, 0.90),
    "usb": (0.93, 0.45, 0.50, 0.94),
    "clip_balanced_head": (0.85, 0.68, 0.70, 0.86),
    "raysynth": (0.90, 0.75, 0.81, 0.89),
}
KIND = {"raysynth": "raysynth", "clip_balanced_head": "control", "usb": "mixture"}
Draw = Callable[[int, int], np.ndarray]


def make_run(folder: Path, *overrides: str, draw: Draw | None = None) -> tuple[Config, Run]:
    """A run whose stages up to the classification are finished.

    `draw(group, index)`: pixels of an image, [H, W, 3] uint8; default: a flat colour.
    """
    config = load_config(None, [f"storage_path={folder}", *overrides])
    run = open_run(config)
    draw = draw or _flat
    rng, edits = np.random.default_rng(0), config.generator == "edit"
    builders = {
        "ingest": lambda work: _real(work, draw),
        "clustering": _clusters,
        "finetune": lambda work: _json(work, "adapters.json", _adapters(rng)),
        "synthesis": lambda work: _synthetic(work, draw, rng, edits) or _generation(work),
        "selection": lambda work: _selection(work),
        "fidelity": lambda work: fidelity(),
        "search": lambda work: _search(work, rng),
        "references": lambda work: _json(work, "results.json", {}),
        "classification": lambda work: (
            _json(work, "results.json", results(rng)) or predictions(work)
        ),
    }
    for name, build in builders.items():
        run.stage(name, {}, lambda work, build=build: build(work) or {"rows": 1})
    return config, run


def _flat(group: int, index: int) -> np.ndarray:
    colour = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60)][group]
    return np.full((16, 16, 3), colour, np.uint8) - np.uint8(index % 40)


def train_ids(group: int) -> list[str]:
    return [f"real-{group}-{index:04d}" for index in range(COUNTS["train"][group])]


def _image(pixels: np.ndarray) -> dict:
    return {"bytes": encode_png(pixels), "path": None}


def _real(work: str, draw: Draw) -> None:
    for split, counts in COUNTS.items():
        rows = []
        for group, count in enumerate(counts):
            names = train_ids(group) if split == "train" else None
            for index in range(count):
                rows.append(
                    {
                        "id": names[index] if names else f"{split}-{group}-{index}",
                        "image": _image(draw(group, index)),
                        "label": GROUPS.label(group),
                        "attribute": GROUPS.attribute(group),
                        "group": group,
                        "split": split,
                    }
                )
        table = pa.Table.from_pylist(rows, with_groups(REAL, GROUPS))
        write_table(table, f"{work}/{split}-00000.parquet")


def _clusters(work: str) -> None:
    rows = [
        {"id": identity, "group": group, "cluster": index % CLUSTERS[group]}
        for group in range(GROUPS.count)
        for index, identity in enumerate(train_ids(group))
    ]
    schema = pa.schema([("id", pa.string()), ("group", pa.int32()), ("cluster", pa.int32())])
    write_table(pa.Table.from_pylist(rows, schema), f"{work}/clusters.parquet")


def _adapters(rng: np.random.Generator) -> list[dict]:
    return [
        {
            "name": f"{GROUPS.name(group).replace('/', '-')}-{cluster}",
            "engine": "lora",
            "scope": "group_cluster",
            "group": group,
            "cluster": cluster,
            "label": GROUPS.label_names[GROUPS.label(group)],
            "attribute": GROUPS.attribute_names[GROUPS.attribute(group)],
            "prompt": f"a photo of a sks {GROUPS.name(group).replace('/', ' on ')}",
            "images": COUNTS["train"][group] // CLUSTERS[group],
            "steps": 150,
            "loss": round(float(rng.uniform(0.3, 0.5)), 4),
        }
        for group in range(GROUPS.count)
        for cluster in range(CLUSTERS[group])
    ]


def _synthetic(work: str, draw: Draw, rng: np.random.Generator, edits: bool) -> None:
    records = []
    for group in range(GROUPS.count):
        rows = []
        for index in range(CANDIDATES):
            label, centroid = rng.uniform(0.2, 0.9, 2)
            rows.append(
                {
                    "id": f"synthetic-{group}-{index:04d}",
                    "image": _image(draw(group, 10_000 + index)),
                    "label": GROUPS.label(group),
                    "attribute": GROUPS.attribute(group),
                    "group": group,
                    "split": "synthetic",
                    "cluster": index % CLUSTERS[group],
                    "generator": "clustered_dreambooth",
                    "adapter": f"{group}-{index % CLUSTERS[group]}",
                    "source": f"real-{3 * (group // 2)}-{index:04d}" if edits else "",
                    "prompt": "a photo",
                    "negative_prompt": "",
                    "seed": index,
                    "guidance_scale": 2.0,
                    "steps": 6,
                    "clip_label": label,
                    "clip_centroid": centroid,
                    "clip_score": (label + centroid) / 2,
                    "nearest": f"real-{group}-{index % COUNTS['train'][group]:04d}",
                    "nearest_similarity": 0.9 - 0.05 * index,
                }
            )
        table = pa.Table.from_pylist(rows, with_groups(SYNTHETIC, GROUPS))
        file = f"group-{group}-00000.parquet"
        write_table(table, f"{work}/{file}")
        records.append(ShardRecord(file, group, len(rows), sha256_of(f"{work}/{file}")))
    write_manifest(work, records, {})


def _generation(work: str) -> dict:
    """Two actors, five batches each, a second apart; the stage's facts."""
    spans = [
        {"actor": actor, "part": part, "start": 100 + batch + first, "end": 100 + batch + last}
        for actor in ("a", "b")
        for batch in range(5)
        for part, first, last in (("unet", 0, 0.7), ("decode", 0.7, 0.8), ("score", 0.8, 1.0))
    ]
    timeline = pa.Table.from_pylist([{**span, "images": 4} for span in spans], SPAN)
    write_timeline(timeline, work)
    pace = {"generated": 40, "start_seconds": 2.5, "utilisation": utilisation(timeline)}
    return {"rows": GROUPS.count * CANDIDATES, **pace}


def _selection(work: str) -> dict:
    """Every fourth candidate is rejected; the first of them, in group 0, is a copy."""
    rows = [
        {
            "id": f"synthetic-{group}-{index:04d}",
            "group": group,
            "score": 1 - index / CANDIDATES,
            "copy": (group, index) == (0, 3),
            "kept": index % 4 != 3,
        }
        for group in range(GROUPS.count)
        for index in range(CANDIDATES)
    ]
    types = [("id", pa.string()), ("group", pa.int32()), ("score", pa.float32())]
    schema = pa.schema([*types, ("copy", pa.bool_()), ("kept", pa.bool_())])
    write_table(pa.Table.from_pylist(rows, schema), f"{work}/selection.parquet")
    names = [GROUPS.name(group) for group in range(GROUPS.count)]
    clusters = [range(count) for count in CLUSTERS]
    of = dict(zip(names, clusters, strict=True))
    return {
        "rows": len(rows),
        "threshold": dict.fromkeys(names, 0.2),
        "copy_threshold": dict.fromkeys(names, 0.7),
        "copies": {n: {str(k): int((n, k) == (names[0], 1)) for k in of[n]} for n in names},
        "kept_per_cluster": {n: {str(k): 9 // len(of[n]) for k in of[n]} for n in names},
    }


def fidelity(*unfaithful: str) -> dict:
    """Facts of the stage: the first group narrow, the second small, those named unfaithful."""
    sides = {"label": 0.9, "attribute": 1.0, "both": 0.9, "images": 30}
    spread = {"ratio": 1.02, "low": 0.9, "high": 1.1, "level": 0.5}
    names = ("brightness", "contrast", "red_green", "blue_yellow", "sharpness")
    measures = ("frechet", "kernel", "precision", "recall", "density", "coverage")
    groups = {
        name: {
            "agreement": dict.fromkeys(("real", "candidates", "kept"), sides),
            "distances": {
                "n": 60,
                **{key: {"value": 0.8, "floor": 0.7} for key in measures},
                "unknown": "",
            },
            "spread": dict.fromkeys(names, spread),
            "unfaithful": name in unfaithful,
            "needed": 0.65,
            "not_judged": "",
        }
        for name in GROUPS.names
    }
    first, second = GROUPS.names[:2]
    groups[first]["spread"]["red_green"] = {"ratio": 0.6, "low": 0.5, "high": 0.7, "level": 0.5}
    groups[first]["distances"]["frechet"] = {"value": 3.5, "floor": 0.7}
    few = "no distance can be known from 9 real and 9 kept images; 100 and 50 are needed"
    groups[second]["distances"] = {"n": 4, **dict.fromkeys(measures), "unknown": few}
    groups[second]["spread"] = dict.fromkeys(names)
    return {
        "encoder": "the embedded small network, trained on other garments",
        "independent": True,
        "dimensions": 128,
        "principal": {"directions": 32, "variance": 0.97},
        "groups": groups,
        "border": {
            "grass": {"images": 30, "real": 0.5, "synthetic": 0.71},
            "gravel": {"images": 4, "real": None, "synthetic": None},
        },
        "unfaithful": list(unfaithful),
    }


def _search(work: str, rng: np.random.Generator) -> None:
    rows = []
    for trial in range(14):
        ratio = (0.0, 0.25, 0.5)[trial % 3]
        steps = int(rng.integers(100, 250))
        rows.append(
            {
                "trial": f"{trial:05d}",
                "ratio": ratio,
                "beta": rng.uniform(0.2, 1),
                "temperature": 10 ** rng.uniform(-1.3, -0.3),
                "learning_rate": 10 ** rng.uniform(-3, -2.3),
                "weight_decay": 10 ** rng.uniform(-3, -0.5),
                "head_weight_decay": 10 ** rng.uniform(-3, 0),
                "steps": steps,
                "reached": steps // 4 if trial % 5 == 4 else steps,
                "validation_wga": float(np.clip(0.4 + 0.5 * ratio + rng.normal(0, 0.07), 0, 1)),
            }
        )
    write_table(pa.Table.from_pylist(rows), f"{work}/trials.parquet")
    best = max(rows, key=lambda row: row["validation_wga"])
    names = [key for key in best if key not in ("trial", "reached", "validation_wga")]
    validation = {"wga": best["validation_wga"], "aga": best["validation_wga"]}
    parameters = {name: best[name] for name in names}
    _json(work, "best.json", {"parameters": parameters, "validation": validation})


def results(rng: np.random.Generator) -> dict:
    """What the classification stage writes."""
    weights = np.asarray(COUNTS["train"]) / sum(COUNTS["train"])
    methods = {}
    for name, accuracy in ACCURACY.items():
        seeds = np.clip(accuracy + rng.normal(0, 0.02, (3, GROUPS.count)), 0, 1).round(3)
        methods[name] = {
            "wga": _spread(seeds.min(axis=1)),
            "aga": _spread(seeds.mean(axis=1)),
            "weighted": _spread(seeds @ weights),
            "groups": {GROUPS.name(g): _spread(seeds[:, g]) for g in range(GROUPS.count)},
            "validation": {"wga": _spread(seeds.min(axis=1))},
            "chosen": {"weight_decay": 0.01, "steps": 150, "stopped_at": [50, 75, 150]},
            "kind": KIND.get(name, "reference"),
            "uses_validation": name == "dfr_validation",
            "budget": {"trainings": 2, "stopping_points": 16, "heads_each": 4},
            "equalized_odds": _spread(seeds.max(axis=1) - seeds.min(axis=1)),
            "demographic_parity": _spread((seeds.max(axis=1) - seeds.min(axis=1)) / 2),
            "interval": {
                "wga": [seeds.min() - 0.05, seeds.min() + 0.05],
                "aga": [seeds.mean() - 0.02, seeds.mean() + 0.02],
            },
        }
    methods["usb"]["synthetic"] = {"wanted": 83, "used": 36}
    return {"selection_rule": "validation worst-group accuracy", "methods": methods}


def predictions(work: str) -> None:
    """What `ACCURACY` says, as far as six images a group can: the first ones of a group are right.

    Of the last seed one image less of the last group.
    """
    named = []
    for name, accuracy in ACCURACY.items():
        for seed in range(3):
            rows = []
            for group, count in enumerate(COUNTS["test"]):
                right = round(accuracy[group] * count) - (seed == 2 and group == 3)
                label = GROUPS.label(group)
                rows += [label if index < right else 1 - label for index in range(count)]
            named.append((name, seed, np.array(rows)))
    ids = [f"test-{g}-{i}" for g, count in enumerate(COUNTS["test"]) for i in range(count)]
    parts = [
        pa.table(
            {"method": [name] * len(ids), "seed": [seed] * len(ids), "id": ids, "predicted": rows}
        ).cast(PREDICTIONS)
        for name, seed, rows in named
    ]
    write_table(pa.concat_tables(parts), f"{work}/predictions.parquet")


def _spread(values: np.ndarray) -> dict:
    return {
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)),
        "seeds": [float(value) for value in values],
    }


def _json(work: str, name: str, value: object) -> None:
    Path(work).joinpath(name).write_text(json.dumps(value))


def finished(run: Run, stage: str) -> Path:
    """The folder of a finished stage."""
    return Path(run.path(FOLDERS[stage]))
