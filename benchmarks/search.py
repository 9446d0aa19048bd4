"""Settings tried per minute: the search stage against one process per trial.

    python benchmarks/search.py [--quick] [--repeats N] [--run FOLDER]

A setting is an encoder's training and a head. The peer is what a user would run instead: for every
setting a process that reads the tables, decodes the images, trains stage 1 for all its steps and
fits the head; two at a time, one thread each, settings drawn from the same space. Ours is the whole
search stage in a process of its own, Ray's start included. Bar: ten times the peer's settings per
minute. `encoders` counts encoder trainings alone.

FOLDER is a run that is finished up to its selection; without it the embedded quickstart is run so
far. --quick takes balanced garments for the generated images, and trains half the steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from measure import Cost, finish, parser, run, timed

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage import tables

BAR = 10.0
PEER = Path(__file__).parent / "peers" / "search_trial.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
QUICK = ["search.steps=[50, 125]"]
AS_POLITE = {"RAY_worker_niceness": "0"}  # Ray's workers give way to others, the peer's do not
TRIALS = {"full": 20, "quick": 4}
"""Settings that the peer tries in each repetition."""


def make_tables(folder: str) -> None:
    """A run's real table, and balanced garments as its synthetic one."""
    from raysynth.synthesis.shards import ShardRecord, write_manifest

    config = Config()
    for split, table in _images(config, ("train", "validation"), tables.REAL).items():
        tables.write_table(table, f"{folder}/real/{split}-00000.parquet")
    dataset = config.dataset.model_copy(update={"severity": 0.5, "train_images": 2400})
    balanced = config.model_copy(update={"dataset": dataset, "seed": 1})
    made = _images(balanced, ("train",), SYNTHETIC)["train"]
    tables.write_table(made, f"{folder}/synthetic/all-00000.parquet")
    record = ShardRecord("all-00000.parquet", 0, len(made), "")
    write_manifest(f"{folder}/synthetic", [record], {})
    kept = pa.table({"id": made["id"], "kept": np.ones(len(made), dtype=bool)})
    tables.write_table(kept, f"{folder}/selection/selection.parquet")


def _images(config: Config, splits: tuple[str, ...], schema: pa.Schema) -> dict[str, pa.Table]:
    data, groups, listing = list_dataset(config.dataset, config.seed)
    found = {}
    for split in splits:
        rows = listing.filter(pa.compute.equal(listing["split"], split))
        images = [{"bytes": png, "path": None} for png in data.images(rows)]
        known = {name: rows[name] for name in tables.REAL.names if name != "image"}
        known["image"] = pa.array(images, tables.IMAGE)
        columns = [
            known[field.name] if field.name in known else pa.nulls(len(rows), field.type)
            for field in schema
        ]
        table = pa.Table.from_arrays(columns, schema.names)
        found[split] = table.cast(tables.with_groups(schema, groups))
    return found


def settings(config: Config, count: int, seed: int) -> list[dict[str, Any]]:
    """Points of the search's space: the configured ones as the search has them, then random."""
    from raysynth.search.space import first_points, search_space

    rng = np.random.default_rng(seed)
    space, search = search_space(config.classifier, config.search), config.search
    points = [{**point} for point in first_points(config.classifier, search)]
    for point in points:
        point["head_weight_decay"] = config.classifier.head_weight_decay
    while len(points) < count:
        draw = {name: _sample(domain, rng) for name, domain in space.items()}
        points.append({**draw, "head_weight_decay": float(rng.choice(search.head_weight_decays))})
    return points[:count]


def _sample(domain: Any, rng: np.random.Generator) -> Any:
    if not hasattr(domain, "sample"):
        return domain
    value = domain.sample(random_state=rng)
    return value.item() if isinstance(value, np.generic) else value


def peer(folder: str, points: list[dict[str, Any]], seed: int) -> tuple[Cost, list[dict[str, Any]]]:
    """Two processes at a time; every trial's result with the second at which it was there."""
    begin = time.monotonic()

    def trial(point: dict[str, Any]) -> dict[str, Any]:
        command = [sys.executable, str(PEER), folder, json.dumps(point), str(seed)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD}
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**found, "at": time.monotonic() - begin}

    results: list[dict[str, Any]] = []
    with ThreadPoolExecutor(2) as pool:
        cost = timed(lambda: results.extend(pool.map(trial, points)))
    return cost, sorted(results, key=lambda result: result["at"])


def ours(folder: str, seed: int, quick: bool) -> tuple[Cost, dict[str, Any]]:
    """The search stage in a fresh process."""
    command = [sys.executable, __file__, "--stage", folder, str(seed), *["--quick"] * quick]
    cost, output = run(command, **ONE_THREAD, **AS_POLITE)
    return cost, json.loads(output.splitlines()[-1])


def stage(folder: str, seed: int, quick: bool) -> None:
    """Start a local Ray, search, print what was tried."""
    from raysynth.cluster.session import Session
    from raysynth.progress import Progress
    from raysynth.search.stage import run_search

    groups = tables.groups_of(tables.read_table(f"{folder}/real", ["id"]).schema)
    paths = [f"{folder}/{name}" for name in ("real", "synthetic", "selection")]
    with tempfile.TemporaryDirectory() as work:
        overrides = QUICK if quick else []
        config = load_config(None, [f"storage_path={work}", f"seed={seed}", *overrides])
        with Session(config, work) as session:
            session.start()
            start = time.perf_counter()
            facts = run_search(config, *paths, groups, f"{work}/search", Progress())
            seconds = time.perf_counter() - start
        trials = tables.read_table(f"{work}/search", files=[f"{work}/search/trials.parquet"])
    rows = trials.to_pylist()
    told = {
        "stage_seconds": seconds,
        "encoders": len(rows),
        "settings": sum(len(row["heads"]) for row in rows),
        "steps": sum(row["steps"] for row in rows),
        "steps_trained": sum(row["reached"] for row in rows),
        "best": facts["best"],
    }
    print(json.dumps(told))


def heads_together() -> dict[str, float]:
    """Milliseconds of the search's heads on features of the quickstart's size, one thread."""
    import torch

    from raysynth.groups.balance import image_weights
    from raysynth.heads.regression import fit_heads

    torch.set_num_threads(1)
    torch.manual_seed(0)
    label = np.arange(4000) % 2
    features = torch.randn(4000, 128) @ torch.randn(128, 128) / 8
    features[:, 0] += torch.from_numpy(label)
    decays, weights = Config().search.head_weight_decays, image_weights(label, "erm")
    together, alone = [], []
    for _ in range(5):
        for into, batches in ((together, [decays]), (alone, [[decay] for decay in decays])):
            start = time.process_time()
            for batch in batches:
                fit_heads(features, label, weights, batch, 2)
            into.append(1000 * (time.process_time() - start))
    return {"together_ms": round(median(together), 1), "one_by_one_ms": round(median(alone), 1)}


def compare(folder: str, seed: int, quick: bool) -> dict[str, Any]:
    """One repetition: ours, then the peer."""
    config = load_config(None, QUICK if quick else [])
    count = TRIALS["quick" if quick else "full"]
    cost, told = ours(folder, seed, quick)
    print(f"ours: {told['settings']} settings in {cost.wall_seconds:.0f} s", file=sys.stderr)
    peer_cost, results = peer(folder, settings(config, count, seed), seed)
    print(f"peer: {count} settings in {peer_cost.wall_seconds:.0f} s", file=sys.stderr)
    parts = {name: median(r["seconds"][name] for r in results) for name in results[0]["seconds"]}
    in_time = [r["wga"] for r in results if r["at"] <= cost.wall_seconds]
    minutes, peer_minutes = cost.wall_seconds / 60, peer_cost.wall_seconds / 60
    return {
        "ours_settings_per_minute": told["settings"] / minutes,
        "ours_encoders_per_minute": told["encoders"] / minutes,
        "peer_settings_per_minute": count / peer_minutes,
        "ratio_settings": told["settings"] / minutes / (count / peer_minutes),
        "ratio_encoders": told["encoders"] / minutes / (count / peer_minutes),
        "ratio_settings_by_cpu_seconds": (told["settings"] / cost.cpu_seconds)
        / (count / peer_cost.cpu_seconds),
        "settings_per_encoder": told["settings"] / told["encoders"],
        "steps_planned_over_trained": told["steps"] / told["steps_trained"],
        "peer_seconds_over_training_alone": sum(parts.values()) / parts["training and head"],
        "ours_stage_seconds": told["stage_seconds"],
        "ours_wall_seconds": cost.wall_seconds,
        "ours_cpu_seconds": cost.cpu_seconds,
        "peer_cpu_seconds": peer_cost.cpu_seconds,
        "ours_validation_wga": told["best"]["validation"]["wga"],
        "peer_validation_wga_in_our_time": max(in_time, default=0.0),
        "peer_wall_seconds": peer_cost.wall_seconds,
        "peer_trial_seconds": parts,
        "peer_wga": [result["wga"] for result in results],
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the repetitions, and the best of the peer's settings of all of them together."""
    numbers: dict[str, Any] = {"repetitions": len(found)}
    for name, value in found[0].items():
        if isinstance(value, float):
            numbers[name] = round(median(each[name] for each in found), 3)
    numbers["peer_trial_seconds"] = found[-1]["peer_trial_seconds"]
    every = [wga for each in found for wga in each["peer_wga"]]
    best = list(accumulate(every, max))
    numbers["peer_validation_wga_after_settings"] = {
        count: best[count - 1] for count in (1, 4, 12, 24, 48, 96) if count <= len(best)
    }
    numbers["ours_validation_wga_each"] = [each["ours_validation_wga"] for each in found]
    return numbers


def main() -> None:
    """Compare and judge."""
    options = parser(__doc__ or "")
    options.add_argument("--run", default=None, help="a run that is finished up to its selection")
    options.add_argument("--stage", nargs=2, help="used by this script: FOLDER SEED")
    chosen = options.parse_args()
    if chosen.stage:
        stage(chosen.stage[0], int(chosen.stage[1]), chosen.quick)
        return
    with tempfile.TemporaryDirectory() as storage:
        folder = chosen.run or f"{storage}/search"
        if not chosen.run and chosen.quick:
            make_tables(folder)
        elif not chosen.run:
            from raysynth.pipeline import run_pipeline

            run_pipeline(load_config(None, [f"storage_path={storage}", "name=search"]), "selection")
        repeats = chosen.repeats or (1 if chosen.quick else 5)
        found = [compare(folder, seed, chosen.quick) for seed in range(repeats)]
    numbers = {**summary(found), "heads": heads_together()}
    bars = {f"settings per minute >= {BAR:g}x the peer's": numbers["ratio_settings"] >= BAR}
    finish("search", numbers, bars, chosen.quick)


if __name__ == "__main__":
    main()
