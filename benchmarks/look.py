"""Does an attribute look the same in every class, a label under every attribute? Outfits, by group.

    python benchmarks/look.py CONFIG [CONFIG ...] --stages runs/benchmarks/stages

For each row of the benchmarks whose images are there, means over a group's kept images, of 255;
real validation images for comparison:

- tint: how much blue exceeds the mean of red and green over the three outermost columns. Where
  grounds of one attribute differ between classes, the tint tells the label: a new shortcut, made by
  the synthetic set.
- brightness of the garment, with its standard deviation. Where one label differs between
  attributes, a garment between two labels is drawn for one group alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from raysynth.benchmark.cells import plan_cells
from raysynth.config_files import load_config
from raysynth.generators import AUTO
from raysynth.synthesis.shards import read_shards
from raysynth.tables import decode_images, groups_of, read_table

EDGE = 3
"""Columns on either side: no garment reaches them."""
MIDDLE = slice(10, 22), slice(11, 21)
"""Rows and columns that every garment covers."""


def tint(pixels: np.ndarray) -> float:
    """Blue above the mean of red and green, in the outermost columns of [N, H, W, 3] images."""
    edges = np.concatenate([pixels[:, :, :EDGE], pixels[:, :, -EDGE:]], axis=2)
    return float((edges[..., 2] - edges[..., :2].mean(-1)).mean())


def brightness(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over images [N, H, W, 3] of what they show in their middle."""
    each = pixels[:, MIDDLE[0], MIDDLE[1]].mean((1, 2, 3))
    return float(each.mean()), float(each.std())


def line(name: str, table: Any, groups: int) -> str:
    """A row's name, tints and brightnesses of its groups."""
    of_group = [table.filter(pc.equal(table["group"], g))["image"] for g in range(groups)]
    pixels = [decode_images(images).astype(np.float32) for images in of_group]
    tints = " ".join(f"{tint(images):6.1f}" for images in pixels)
    return f"  {name:<32} {tints}  |" + "".join(
        f"{mean:6.0f} ±{std:3.0f}" for mean, std in map(brightness, pixels)
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("configs", nargs="+")
    options.add_argument("--stages", type=Path, required=True, help="folder of finished stages")
    arguments = options.parse_args()
    cells = [cell for name in arguments.configs for cell in plan_cells(load_config(name, []))]
    cells.sort(key=lambda cell: (str(cell.severity), cell.seed))  # all of one data set together
    seen: set[str] = set()
    for cell in cells:
        if cell.config.generator == AUTO:  # its images are those of another row
            continue
        folders = {name.rsplit("-", 1)[0]: arguments.stages / name for name in cell.folders}
        real, made, kept = (folders[name] for name in ("ingest", "synthesis", "selection"))
        there = all(Path(f"{folder}.json").exists() for folder in (real, made, kept))
        if not there or str(kept) in seen:
            continue
        table = read_table(str(real))
        groups, where = groups_of(table.schema), f"severity {cell.severity}, seed {cell.seed}"
        if str(real) not in seen:
            names = ", ".join(groups.name(g) for g in range(groups.count))
            print(f"{where}, tint and brightness: {names}")
            validation = table.filter(pc.equal(table["split"], "validation"))
            print(line("real", validation, groups.count))
        seen |= {str(real), str(kept)}
        chosen = read_table(str(kept), files=[f"{kept}/selection.parquet"])
        ids = chosen.filter(chosen["kept"])["id"].combine_chunks()
        images = read_shards(str(made), ["id", "image", "group"])
        images = images.filter(pc.is_in(images["id"], value_set=ids))
        print(line(cell.row, images, groups.count))


if __name__ == "__main__":
    main()
