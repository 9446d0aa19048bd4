"""What each way of selecting keeps: does it show what was asked for, and is any of it a copy?

    python benchmarks/selection.py [RUN]

RUN is the folder of a run that has its synthetic images (default: the quickstart is run up to its
selection, in a new folder). Selection is tried again on its candidates with every rule, alpha and
share; the judge says how many of the kept images show the garment and the ground that were asked
for. Also printed: similarities to the nearest training images and copies, per group and cluster.
Exits 1 if the paper's rule keeps worse images than a random draw.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from judge import accuracies, load_judge
from measure import finish, parser

from raysynth.config.files import load_config
from raysynth.groups.groups import Groups
from raysynth.method import FOLDERS
from raysynth.pipeline import run_pipeline
from raysynth.selection.copies import copy_thresholds, read_neighbours
from raysynth.selection.settings import SelectionConfig
from raysynth.selection.stage import select
from raysynth.storage.tables import decode_images, groups_of
from raysynth.synthesis.shards import read_shards

ALPHAS, KEEPS, SEEDS = (0.0, 0.25, 0.5, 0.75, 1.0), (0.25, 0.5, 0.75), range(5)


def rules() -> list[tuple[str, SelectionConfig, Any]]:
    """Name, configuration and seeds of every way."""
    rows: list[tuple[str, SelectionConfig, Any]] = [("off", SelectionConfig(rule="off"), (0,))]
    for keep in KEEPS:
        rows += [(f"alpha {a:g}", SelectionConfig(alpha=a, keep=keep), (0,)) for a in ALPHAS]
        rows.append(("random", SelectionConfig(rule="random", keep=keep), SEEDS))
        rows.append(("per cluster", SelectionConfig(per_cluster=True, keep=keep), (0,)))
    return rows


def kept_images(
    candidates: pa.Table, pixels: np.ndarray, limits: np.ndarray, groups: Groups
) -> list[dict[str, Any]]:
    """The judge's accuracies of what every way keeps; random draws are averaged."""
    judge, group = load_judge(), candidates["group"].to_numpy()
    rows = []
    for name, config, seeds in rules():
        kept = [
            select(candidates, limits, config, groups, seed)["kept"].to_numpy() for seed in seeds
        ]
        judged = [accuracies(judge, pixels[mask], group[mask], groups) for mask in kept]
        row: dict[str, Any] = {"rule": name, "keep": 1.0 if name == "off" else config.keep}
        row["images"] = int(kept[0].sum())
        for key in judged[0]:
            row[key] = round(float(np.mean([values[key] for values in judged])), 4)
        rows.append(row)
        print(f"  {row}", file=sys.stderr)
    return rows


def clusters(candidates: pa.Table, limits: np.ndarray, groups: Groups) -> list[dict[str, Any]]:
    """Similarities and copies of every cluster."""
    frame, rows = candidates.to_pandas(), []
    for (g, k), part in frame.groupby(["group", "cluster"]):
        similarity = part["nearest_similarity"].to_numpy()
        rows.append(
            {
                "group": groups.name(int(g)),
                "cluster": int(k),
                "images": len(part),
                "median": round(float(np.median(similarity)), 3),
                "q99": round(float(np.quantile(similarity, 0.99)), 3),
                "threshold": round(float(limits[int(g)]), 3),
                "copies": int((similarity > limits[int(g)]).sum()),
            }
        )
        print(f"  {rows[-1]}", file=sys.stderr)
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("run", nargs="?", help="folder of a run with synthetic images")
    arguments = options.parse_args()
    if arguments.run is None:
        storage = tempfile.mkdtemp(prefix="raysynth-bench-")
        arguments.run = run_pipeline(
            load_config(None, [f"storage_path={storage}"]), "selection"
        ).root
    root = Path(arguments.run)
    table = read_shards(str(root / FOLDERS["synthesis"]))
    groups = groups_of(table.schema)
    neighbours = read_neighbours(str(root / FOLDERS["clustering"]))
    limits = copy_thresholds(SelectionConfig(), neighbours, groups)
    candidates = table.drop_columns("image")
    ways = kept_images(candidates, decode_images(table["image"], 32), limits, groups)
    paper = next(row for row in ways if (row["rule"], row["keep"]) == ("alpha 0.5", 0.75))
    drawn = next(row for row in ways if (row["rule"], row["keep"]) == ("random", 0.75))
    numbers = {"kept": ways, "clusters": clusters(candidates, limits, groups)}
    bars = {"the paper's rule keeps better images than chance": paper["both"] > drawn["both"]}
    finish("selection", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
