"""A run whose images are there, made by hand in the stages' own formats: no Ray, no model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysynth.config.config import Config
from raysynth.grouping.stage import run_grouping
from raysynth.groups.groups import Groups
from raysynth.method import nodes_of
from raysynth.pipeline import open_run
from raysynth.progress import Progress
from raysynth.scoring.columns import SYNTHETIC
from raysynth.stages.run import Run
from raysynth.storage.tables import REAL, encode_png, with_groups, write_table
from raysynth.synthesis.shards import ShardRecord, write_manifest
from tests.training.tiny import as_table, tiny_config, tiny_data, tiny_groups, tiny_images

NAMES = ("a", "b/ä c"), ("1", "2")
"""Labels and attributes; one has what no file's name should have."""
SHARD = 6
"""Candidates in a file of the synthetic table; a group has ten."""


@dataclass(frozen=True)
class MadeRun:
    """Its configuration, the run, and what was put into it."""

    config: Config
    run: Run
    groups: Groups
    synthetic: pa.Table
    real: pa.Table
    kept: list[str]
    """Ids, in order."""


def make_run(folder: Path, *overrides: str, adapter: bytes | None = None) -> MadeRun:
    """The run `tiny` below a folder; `adapter`: the file of its adapter `0-0`."""
    config = tiny_config(f"storage_path={folder}", "name=tiny", *overrides)
    run, groups = open_run(config), Groups(*NAMES, *NAMES)
    data = tiny_data(tiny_groups())
    table = _synthetic(data.synthetic, groups)
    real = {
        split: as_table(images, split, groups, with_groups(REAL, groups))
        for split, images in (
            ("train", data.train),
            ("validation", data.validation),
            ("test", tiny_images([8] * 4, tiny_groups(), 4, "test")),
        )
    }
    kept = [place % 10 < 8 for place in range(table.num_rows)]
    builds = {
        "ingest": lambda work: _ingest(work, real, groups),
        "grouping": lambda work: run_grouping(
            config, run.folder("ingest"), groups, work, Progress()
        ),
        "clustering": lambda work: {"rows": 0},
        "finetune": lambda work: _finetune(work, adapter),
        "synthesis": lambda work: _shards(work, table, groups),
        "selection": lambda work: _selection(work, table, kept),
    }
    for node in nodes_of(config, "selection"):
        run.stage(node.name, node.inputs, builds[node.name])
    ids = [i for i, keep in zip(table["id"].to_pylist(), kept, strict=True) if keep]
    return MadeRun(config, run, groups, table, pa.concat_tables(real.values()), ids)


def _synthetic(images, groups: Groups) -> pa.Table:
    table = as_table(images, "train", groups, with_groups(SYNTHETIC, groups))
    count = table.num_rows
    said = {
        "generator": ["clustered_dreambooth"] * count,
        "adapter": ["0-0"] * count,
        "prompt": [f"a photo, number {place}" for place in range(count)],
        "seed": [2**62 + place for place in range(count)],
        "source": ["" if place % 5 else "train-1" for place in range(count)],
    }
    for name, values in said.items():
        place = table.column_names.index(name)
        table = table.set_column(place, SYNTHETIC.field(name), pa.array(values))
    return table.replace_schema_metadata(with_groups(SYNTHETIC, groups).metadata)


def _ingest(work: str, real: dict[str, pa.Table], groups: Groups) -> dict:
    for split, table in real.items():
        write_table(table, f"{work}/{split}-00000.parquet")
    counts = {
        split: np.bincount(table["group"].to_numpy(), minlength=groups.count).tolist()
        for split, table in real.items()
    }
    rows = sum(len(table) for table in real.values())
    return {"rows": rows, "groups": groups.to_dict(), "counts": counts}


def _finetune(work: str, adapter: bytes | None) -> dict:
    record = {
        **{"name": "0-0", "engine": "lora", "scope": "group_cluster", "group": 0, "cluster": 0},
        **{"label": "a", "attribute": "1", "prompt": "a photo of a sks a", "images": 24},
        **{"steps": 3, "loss": 0.5},
    }
    folder = Path(work, "0-0")
    folder.mkdir(parents=True)
    weights = adapter or b"no weights, and a hash all the same"
    (folder / "pytorch_lora_weights.safetensors").write_bytes(weights)
    (folder / "adapter.json").write_text(json.dumps(record))
    Path(work, "adapters.json").write_text(json.dumps([record]))
    return {"rows": 1}


def _shards(work: str, table: pa.Table, groups: Groups) -> dict:
    records, group = [], table["group"].to_numpy()
    for g in range(groups.count):
        rows = np.flatnonzero(group == g)
        for number, start in enumerate(range(0, len(rows), SHARD)):
            part = table.take(rows[start : start + SHARD])
            file = f"group-{g}-{number:05d}.parquet"
            write_table(part, f"{work}/{file}")
            records.append(ShardRecord(file, g, part.num_rows, ""))
    write_manifest(work, records, {})
    return {"rows": table.num_rows}


def _selection(work: str, table: pa.Table, kept: list[bool]) -> dict:
    found = {
        "id": table["id"],
        "group": table["group"].cast(pa.int32()),
        "score": pa.array(np.linspace(1, 0, table.num_rows), pa.float32()),
        "copy": pa.array([False] * table.num_rows),
        "kept": pa.array(kept),
    }
    write_table(pa.table(found), f"{work}/selection.parquet")
    return {"rows": table.num_rows}


def stranger(script: str, **environment: str) -> list[str]:
    """Lines that a process says which never imports raysynth, and ends without an error."""
    import os

    code = f"{script}\nimport sys\nassert not [m for m in sys.modules if m.startswith('raysynth')]"
    given = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    given |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": given.get("HF_DATASETS_CACHE", "/nowhere"),
    }
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=given, cwd="/"
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout.splitlines()


def painted(side: int = 12) -> bytes:
    """PNG bytes of something to look at."""
    return encode_png(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))
