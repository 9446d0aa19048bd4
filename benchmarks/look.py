"""Does an attribute look the same in every class, a label under every attribute? Outfits, by group.

    python benchmarks/look.py CONFIG [CONFIG ...] --stages runs/benchmarks/stages [--sheets FOLDER]

For each row of the benchmarks whose images are there, means over a group's kept images, of 255;
real validation images for comparison:

- tint: how much blue exceeds the mean of red and green over the three outermost columns. Where
  grounds of one attribute differ between classes, the tint tells the label: a new shortcut, made by
  the synthetic set.
- brightness of the garment, with its standard deviation. Where one label differs between
  attributes, a garment between two labels is drawn for one group alone.

`--sheets`: the images too, one picture per severity and seed, every row's groups below each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from raysynth.benchmark.cells import plan_cells
from raysynth.config.files import load_config
from raysynth.generators.recipe import AUTO
from raysynth.storage.tables import decode_images, groups_of, read_table
from raysynth.strips import Strip, captioned, mosaic
from raysynth.synthesis.shards import read_shards

EDGE = 3
"""Columns on either side: no garment reaches them."""
MIDDLE = slice(10, 22), slice(11, 21)
"""Rows and columns that every garment covers."""
ACROSS = 14
"""Images of a group in a picture."""


def tint(pixels: np.ndarray) -> float:
    """Blue above the mean of red and green, in the outermost columns of [N, H, W, 3] images."""
    edges = np.concatenate([pixels[:, :, :EDGE], pixels[:, :, -EDGE:]], axis=2)
    return float((edges[..., 2] - edges[..., :2].mean(-1)).mean())


def brightness(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over images [N, H, W, 3] of what they show in their middle."""
    each = pixels[:, MIDDLE[0], MIDDLE[1]].mean((1, 2, 3))
    return float(each.mean()), float(each.std())


def pixels_of(table: pa.Table, groups: int) -> list[np.ndarray]:
    """[G] images [N, H, W, 3] of a table's groups."""
    of_group = [table.filter(pc.equal(table["group"], g))["image"] for g in range(groups)]
    return [decode_images(images) for images in of_group]


def line(name: str, pixels: list[np.ndarray]) -> str:
    """A row's name, tints and brightnesses of its groups."""
    pixels = [images.astype(np.float32) for images in pixels]
    tints = " ".join(f"{tint(images):6.1f}" for images in pixels)
    return f"  {name:<32} {tints}  |" + "".join(
        f"{mean:6.0f} ±{std:3.0f}" for mean, std in map(brightness, pixels)
    )


def strip(name: str, pixels: list[np.ndarray]) -> Strip:
    """The first images of every group, a line each."""
    shown = [Image.fromarray(image) for images in pixels for image in images[:ACROSS]]
    return Strip(name, sum(map(len, pixels)), mosaic(shown, ACROSS))


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("configs", nargs="+")
    options.add_argument("--stages", type=Path, required=True, help="folder of finished stages")
    options.add_argument("--sheets", type=Path, help="folder for pictures of the images")
    options.add_argument("--rows", nargs="+", help="only these rows, in this order")
    arguments = options.parse_args()
    cells = [cell for name in arguments.configs for cell in plan_cells(load_config(name, []))]
    if rows := arguments.rows:
        cells = sorted((c for c in cells if c.row in rows), key=lambda cell: rows.index(cell.row))
    cells.sort(key=lambda cell: (str(cell.severity), cell.seed))  # all of one data set together
    seen: set[str] = set()
    sheets: dict[str, list[Strip]] = {}
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
            pixels = pixels_of(validation, groups.count)
            print(line("real", pixels))
            sheets[where] = [strip("real", pixels)]
        seen |= {str(real), str(kept)}
        chosen = read_table(str(kept), files=[f"{kept}/selection.parquet"])
        ids = chosen.filter(chosen["kept"])["id"].combine_chunks()
        images = read_shards(str(made), ["id", "image", "group"])
        images = images.filter(pc.is_in(images["id"], value_set=ids))
        pixels = pixels_of(images, groups.count)
        print(line(cell.row, pixels))
        sheets[where].append(strip(cell.row, pixels))
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        for where, strips in sheets.items():
            name = where.replace(", ", "-").replace(" ", "-")
            captioned(f"{where}: {names}", strips).save(arguments.sheets / f"{name}.png")


if __name__ == "__main__":
    main()
