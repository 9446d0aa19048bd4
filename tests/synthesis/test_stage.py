"""The whole stage on a real Ray: shards, streaming, resume, seeds."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from raysynth.config.config import Config
from raysynth.errors import DamagedError
from raysynth.progress import Progress
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage.marks import is_marked
from raysynth.storage.tables import decode_images, groups_of
from raysynth.synthesis.shards import (
    ShardRecord,
    read_manifest,
    read_shards,
    shard_files,
    write_manifest,
)
from raysynth.synthesis.stage import _finished, run_synthesis
from tests.synthesis.conftest import COUNTS, GROUPS, planned, records


class Watch(Progress):
    """Runs `look(done, total)` at every progress update of the stage."""

    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        super().update(what, done, total)
        self.look(done, total)


def synthesize(
    config: Config,
    adapters: str,
    clusters: str,
    work: Path,
    progress: Progress | None = None,
    real: str = "",
) -> dict[str, Any]:
    return run_synthesis(
        config, real, adapters, clusters, GROUPS, COUNTS, str(work), progress or Progress()
    )


def pixels(folder: Path) -> dict[str, np.ndarray]:
    table = read_shards(str(folder), ["id", "image"])
    return dict(zip(table["id"].to_pylist(), decode_images(table["image"]), strict=True))


@pytest.fixture(scope="module")
def reference(ray_local, make_config, lora_folder, clusters_folder, tmp_path_factory) -> Path:
    """One actor, batches of 8, float32."""
    folder = tmp_path_factory.mktemp("reference")
    synthesize(make_config(), lora_folder, clusters_folder, folder)
    return folder


def test_shards_are_one_group_each_and_the_manifest_vouches(reference):
    manifest = json.loads((reference / ".manifest.json").read_text())
    assert manifest["rows"] == 48
    images = read_shards(str(reference), ["image"])["image"].to_pylist()
    assert all(is_marked(image["bytes"]) for image in images)
    assert sorted(p.name for p in reference.iterdir()) == sorted(
        [*(s["file"] for s in manifest["shards"]), ".manifest.json", ".timeline.feather"]
    )
    for shard in manifest["shards"]:
        path = reference / shard["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        table = pa.parquet.read_table(path)
        assert table.schema.equals(SYNTHETIC)
        assert groups_of(table.schema) == GROUPS
        assert table.num_rows == shard["rows"] <= 8
        assert set(table["group"].to_pylist()) == {shard["group"]}
        assert table["id"].to_pylist() == sorted(table["id"].to_pylist())


def test_plain_pyarrow_reads_the_table(reference):
    table = pyarrow.dataset.dataset(shard_files(str(reference)), format="parquet").to_table()
    assert table.num_rows == 48
    image = table["image"][0].as_py()
    assert image["bytes"].startswith(b"\x89PNG")
    score = (table["clip_label"].to_numpy() + table["clip_centroid"].to_numpy()) / 2
    assert np.allclose(score, table["clip_score"].to_numpy(), atol=1e-6)


def test_images_do_not_depend_on_actors_or_batches(
    reference, make_config, lora_folder, clusters_folder, tmp_path
):
    config = make_config(synthesis={"actors": 2, "batch_size": 5})
    synthesize(config, lora_folder, clusters_folder, tmp_path)
    expected, got = pixels(reference), pixels(tmp_path)
    assert expected.keys() == got.keys()
    difference = [np.abs(expected[k].astype(int) - got[k].astype(int)).max() for k in expected]
    assert max(difference) <= 1  # float32: other batch shapes round differently


@pytest.mark.slow
def test_same_batches_on_more_actors_give_the_same_bytes(
    reference, make_config, lora_folder, clusters_folder, tmp_path
):
    synthesize(make_config(synthesis={"actors": 2}), lora_folder, clusters_folder, tmp_path)
    first, second = read_shards(str(reference)), read_shards(str(tmp_path))
    assert first["id"].equals(second["id"])
    assert first["image"].equals(second["image"])


@pytest.mark.slow
def test_the_first_shard_is_on_disk_before_the_last_image(
    ray_local, make_config, clusters_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("raysynth.synthesis.collect.POLL_SECONDS", 0.05)
    config = make_config(
        generator="vanilla",
        # Long enough for the process that writes the first shard to start, on a busy machine too.
        synthesis={"images_per_group": 64, "batch_size": 4, "steps": 30, "rows_per_shard": 4},
    )
    seen: list[float] = []

    def look(done: float, total: float) -> None:
        if done < total and any(tmp_path.glob("group-*.parquet")):
            seen.append(done)

    facts = synthesize(config, "", clusters_folder, tmp_path, Watch(look))
    assert facts["rows"] == 256
    assert seen, "no shard was there while images were missing"


def test_a_manifest_that_lacks_a_shard_is_not_the_end_of_an_attempt(tmp_path):
    shards = [ShardRecord(f"group-0-0000{n}.parquet", 0, n + 1, "") for n in range(3)]
    for shard in shards:
        (tmp_path / shard.file).touch()
    assert _finished(str(tmp_path)) is None
    write_manifest(str(tmp_path), shards, {})
    assert _finished(str(tmp_path))["rows"] == 6
    write_manifest(str(tmp_path), shards[1:], {})
    assert read_manifest(str(tmp_path))["rows"] == 5, "valid"
    assert _finished(str(tmp_path)) is None


@pytest.mark.slow
def test_a_failure_in_the_middle_is_gone_on_with(
    ray_local, make_config, full_folder, clusters_folder, tmp_path
):
    """The last adapter's weights are broken: the run dies there; repaired, it goes on."""
    # Blocks of 5: the one that fails holds the end of group 1 and the start of group 2, which
    # borrows its label's adapter, group 3's. So group 0 is complete by then and group 1 is not.
    synthesis = {"batch_size": 5, "steps": 8, "rows_per_shard": 100, "lender": "label"}
    config = make_config(finetune={"engine": "full"}, synthesis=synthesis)
    weights = Path(full_folder) / "3-0" / "unet" / "diffusion_pytorch_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(b"broken")
    try:
        for _ in range(5):  # on a busy machine the failure may come before the first blocks' files
            with pytest.raises(DamagedError, match="3-0/unet cannot be loaded"):
                synthesize(config, full_folder, clusters_folder, tmp_path)
            if any(name.startswith("g1-") for name in ids_of(committed(tmp_path))):
                break
    finally:
        weights.write_bytes(good)
    assert not (tmp_path / ".manifest.json").exists()
    whole = {path.name: path.read_bytes() for path in tmp_path.glob("group-*.parquet")}
    assert set(whole) <= {"group-0-00000.parquet"}
    marked = {name for name in mark(committed(tmp_path)) if name.startswith("g1-")}
    assert marked, "nothing of group 1 was finished before the failure"

    counts: list[float] = []
    look = Watch(lambda done, total: counts.append(done) if total else None)
    facts = synthesize(config, full_folder, clusters_folder, tmp_path, look)
    table = read_shards(str(tmp_path), ["id", "prompt"])
    assert counts[0] == facts["resumed"] >= len(marked)
    assert facts["generated"] == 48 - facts["resumed"]
    assert (
        table["id"].to_pylist()
        == planned(config, records(config), GROUPS, COUNTS)["id"].to_pylist()
    )
    prompts = {row["id"]: row["prompt"] for row in table.to_pylist()}
    assert all(prompts[name] == "made before the failure" for name in marked)
    assert all((tmp_path / name).read_bytes() == data for name, data in whole.items())


def committed(work: Path) -> list[Path]:
    """Blocks of which a shard still waits for rows."""
    return sorted((work / "blocks").glob("rows-*.parquet"))


def ids_of(blocks: list[Path]) -> set[str]:
    """Ids of the finished rows."""
    return {name for path in blocks for name in pa.parquet.read_table(path)["id"].to_pylist()}


def mark(blocks: list[Path]) -> set[str]:
    """Write a mark into finished rows, which making them again would wipe out; their ids."""
    for path in blocks:
        table = pa.parquet.read_table(path)
        column = table.schema.get_field_index("prompt")
        marks = pa.array(["made before the failure"] * table.num_rows)
        pa.parquet.write_table(table.set_column(column, "prompt", marks), path)
    return ids_of(blocks)


def test_a_finished_stage_is_left_alone(reference, make_config, lora_folder, clusters_folder):
    before = {p.name: p.stat().st_mtime_ns for p in reference.iterdir()}
    start = time.monotonic()
    facts = synthesize(make_config(), lora_folder, clusters_folder, reference)
    assert facts["rows"] == 48 and time.monotonic() - start < 1
    assert before == {p.name: p.stat().st_mtime_ns for p in reference.iterdir()}
