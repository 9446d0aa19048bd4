"""A tiny biased data set: the label is a bright half, the attribute is a colour; 12x12 pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.groups.groups import Groups
from raysynth.networks.build import Blueprint, blueprint_of
from raysynth.networks.images import Data, ImageSet
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage import tables
from raysynth.synthesis.shards import ShardRecord, write_manifest

SIDE = 12


def tiny_groups(labels: int = 2, attributes: int = 2) -> Groups:
    """Groups with letters for labels and numbers for attributes."""
    label = tuple("abcdef"[:labels])
    attribute = tuple("123456"[:attributes])
    return Groups(label, attribute, label, attribute)


def tiny_config(*overrides: str) -> Config:
    """A configuration whose trainings take a fraction of a second."""
    return load_config(
        None,
        [
            "classifier.widths=[8, 16]",
            "classifier.steps=12",
            "references.steps=12",
            "references.jtt_steps=6",
            "references.controls=[]",
            "classifier.batch_size=16",
            "classifier.evaluations=2",
            "classifier.full_steps=6",
            "classifier.seeds=2",
            "references.evaluations=2",
            "references.seeds=2",
            "classifier.precision=float32",
            "search.trials=3",
            "search.steps=[6, 12]",
            *overrides,
        ],
    )


def tiny_blueprint(*overrides: str) -> Blueprint:
    """What the networks of that configuration are made from."""
    return blueprint_of(tiny_config(*overrides))


def tiny_images(
    counts: list[int], groups: Groups, seed: int, name: str = "image", side: int = SIDE
) -> ImageSet:
    """`counts[g]` images of each group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups.count), counts)
    label = group // len(groups.attribute_names)
    attribute = group % len(groups.attribute_names)
    pixels = rng.integers(0, 90, (len(group), 3, side, side), dtype=np.uint8)
    band = side // len(groups.label_names)
    for row, (y, a) in enumerate(zip(label, attribute, strict=True)):
        pixels[row, :, y * band : (y + 1) * band, :] += 60
        pixels[row, a % 3] += 70
    ids = np.array([f"{name}-{row:04d}" for row in range(len(group))])
    return ImageSet(pixels, label.astype(np.int64), group.astype(np.int64), ids)


def tiny_data(groups: Groups | None = None) -> Data:
    """Train biased 24 to 4, validation and synthetic images balanced."""
    groups = groups or tiny_groups()
    width = len(groups.attribute_names)
    train = [24 if g % width == (g // width) % width else 4 for g in range(groups.count)]
    return Data(
        tiny_images(train, groups, 1),
        tiny_images([6] * groups.count, groups, 2),
        tiny_images([10] * groups.count, groups, 3),
        groups,
    )


def write_tiny_run(folder: str, groups: Groups | None = None) -> dict[str, str]:
    """Real, synthetic and selection folders as the earlier stages leave them; their paths."""
    groups = groups or tiny_groups()
    data = tiny_data(groups)
    test = tiny_images([8] * groups.count, groups, 4, "test")
    for split, images in (("train", data.train), ("validation", data.validation), ("test", test)):
        schema = tables.with_groups(tables.REAL, groups)
        tables.write_table(
            as_table(images, split, groups, schema), f"{folder}/real/{split}-00000.parquet"
        )
    made = data.synthetic
    table = as_table(made, "synthetic", groups, tables.with_groups(SYNTHETIC, groups))
    records = []
    for g in range(groups.count):
        name = f"group-{g}-00000.parquet"
        rows = np.flatnonzero(made.group == g)
        tables.write_table(table.take(rows), f"{folder}/synthetic/{name}")
        records.append(ShardRecord(name, g, len(rows), ""))
    tables.write_table(table.slice(0, 3), f"{folder}/synthetic/group-0-99999.parquet")  # not listed
    write_manifest(f"{folder}/synthetic", records, {})
    kept = np.arange(len(made)) % 10 < 8
    tables.write_table(
        pa.table({"id": made.ids.tolist(), "kept": kept}), f"{folder}/selection/selection.parquet"
    )
    return {name: f"{folder}/{name}" for name in ("real", "synthetic", "selection")}


def as_table(images: ImageSet, split: str, groups: Groups, schema: pa.Schema) -> pa.Table:
    """The images as rows of a table; columns that an image set does not know are empty."""
    count = len(images)
    width = len(groups.attribute_names)
    pngs = [tables.encode_png(p.transpose(1, 2, 0).copy()) for p in images.pixels]
    known = {
        "id": images.ids.tolist(),
        "image": pa.array([{"bytes": png, "path": None} for png in pngs], tables.IMAGE),
        "label": images.label,
        "attribute": images.group % width,
        "group": images.group,
        "split": [split] * count,
    }
    filler = {
        field.name: [""] * count if pa.types.is_string(field.type) else np.zeros(count)
        for field in schema
        if field.name not in known
    }
    arrays = [pa.array((known | filler)[field.name]).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
