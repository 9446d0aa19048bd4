"""The miniature pipeline after each fault, on S3, and below names that are patterns elsewhere.

Same command, same images: by id, bit for bit.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load

from raysynth.cluster.lease import LEASE
from raysynth.cluster.local import LOCAL_ENVIRONMENT
from raysynth.errors import StorageError
from raysynth.pipeline import open_run, run_pipeline
from raysynth.progress import Progress
from raysynth.storage import files as storage
from raysynth.storage.tables import decode_images
from raysynth.synthesis.shards import read_shards
from raysynth.verify import verify
from tests.test_pipeline import MINIATURE, USUAL, miniature

ALONE = ["resources.workers=1", "clustering.actors=1", "synthesis.actors=1"]
SMALL = [
    *ALONE,
    "synthesis.rows_per_shard=8",
    "references.names=[erm]",
    "references.seeds=1",
    "classifier.seeds=1",
]
LAST = "synthesis"


def images(folder: str) -> dict[str, str]:
    """Id -> sha256 of the image's bytes, of the synthetic table in a folder or URI."""
    table = read_shards(folder)
    bytes_of = [image["bytes"] for image in table["image"].to_pylist()]
    made = [hashlib.sha256(data).hexdigest() for data in bytes_of]
    return dict(zip(table["id"].to_pylist(), made, strict=True))


def pixels(folder: str) -> dict[str, np.ndarray]:
    """Id -> [H, W, 3] of the synthetic table in a folder or URI."""
    table = read_shards(folder)
    return dict(zip(table["id"].to_pylist(), decode_images(table["image"]), strict=True))


def run_on(folder: Path, until: str | None = LAST) -> dict[str, str]:
    return images(run_pipeline(miniature(folder, *SMALL), until=until).folder("synthesis"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory, ray_local) -> tuple[Path, dict[str, str]]:
    """A run's storage and its images."""
    folder = tmp_path_factory.mktemp("plain")
    made = run_on(folder)
    assert len(made) == 64 and len(set(made.values())) > 60
    return folder, made


def skipped(text: str) -> list[str]:
    """Stages that a run's output calls unchanged."""
    lines = [line.split() for line in text.splitlines() if "unchanged" in line]
    return [line[1] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "stage"),
    [("synthetic/group-*.parquet", "synthesis"), ("adapters/*/*.safetensors", "finetune")],
)
def test_a_file_cut_in_half_is_made_again(plain, capsys, pattern, stage):
    folder, before = plain
    file = sorted((folder / "mini").glob(pattern))[1]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert run_on(folder) == before
    said = capsys.readouterr().err
    assert f"{file} has {len(whole) // 2:,} bytes, expected {len(whole):,}" in said
    assert set(skipped(said)) == {"ingest", "clustering", "finetune", "synthesis"} - {stage}
    if stage == "synthesis":
        assert file.read_bytes() == whole
        return
    made, known = load(file.read_bytes()), load(whole)  # the header's order is left open
    assert made.keys() == known.keys() and all(made[k].equal(known[k]) for k in known)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("synthetic/group-2-*.parquet", lambda data: 40),  # in the ids, which selection reads
        ("synthetic/group-1-*.parquet", lambda data: len(data) // 3),  # in the images
        ("real/train-*.parquet", lambda data: len(data) // 2),
    ],
)
def test_a_file_of_the_same_size_and_other_content_is_made_again(plain, capsys, pattern, place):
    """Nothing shows it until it is read."""
    folder, before = plain
    file = sorted((folder / "mini").glob(pattern))[0]
    changed = bytearray(file.read_bytes())
    changed[place(changed)] ^= 1
    file.write_bytes(changed)
    small = miniature(folder, *SMALL, "search.trials=0", f"selection.alpha=0.{len(changed)}")
    run = run_pipeline(small, until="classification")
    assert images(run.folder("synthesis")) == before
    assert f"{file}: " in (said := capsys.readouterr().err) and "makes it again" in said


@pytest.mark.slow
def test_an_emptied_manifest_costs_nothing(plain, capsys):
    folder, before = plain
    (folder / "mini/manifest.json").write_bytes(b"")
    capsys.readouterr()
    assert run_on(folder) == before
    said = capsys.readouterr().err
    assert len(skipped(said)) == 4 and "manifest.json cannot be read" in said


@pytest.mark.slow
def test_a_disk_that_fills_up_is_said_and_the_run_goes_on(plain, monkeypatch):
    """The write of the synthetic manifest fails half done, and so does every one after it."""
    folder, before = plain
    (folder / "mini/synthetic/.manifest.json").unlink()
    real, full = os.fsync, False

    def fsync(number: int) -> None:
        nonlocal full
        full = full or "manifest.json." in os.readlink(f"/proc/self/fd/{number}")
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", fsync)
        with pytest.raises(StorageError, match=r"disk full at .*manifest\.json.*goes on"):
            run_on(folder)
    assert not list(folder.rglob("*.tmp"))
    assert run_on(folder) == before


KILLED = """
import os, signal, sys
import raysynth.stages.run as runs
from raysynth.cli import main
move = runs.move
def moved(source, target):
    move(source, target)
    if "/.partial/synthesis-" in source:
        os.kill(os.getpid(), signal.SIGKILL)
runs.move = moved
main()
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_killed_between_publishing_and_naming_it_is_not_generated_again(plain, tmp_path, capsys):
    _, before = plain
    given = [f"storage_path={tmp_path}", *MINIATURE, *SMALL]
    command = [sys.executable, "-c", KILLED, "run", *given]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert images(f"{tmp_path}/mini/synthetic") == before
    capsys.readouterr()
    assert run_on(tmp_path) == before
    assert len(skipped(capsys.readouterr().err)) == 4


@pytest.mark.slow
def test_a_path_is_no_pattern(plain, tmp_path):
    """All stages, Tune's among them, below folders that elsewhere are columns and globs."""
    folder = tmp_path / "seed=1" / "row=3" / "row_of_plan" / "split=v2" / "runs [v2]"
    assert run_on(folder, until=None) == plain[1]
    assert (folder / "mini/report/index.html").exists()


ON_TWO_NODES = """
import os, sys
from ray.cluster_utils import Cluster
from raysynth.cli import main
node = {"num_cpus": 2, "object_store_memory": 200_000_000}
cluster = Cluster(True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
cluster.wait_for_nodes()
os.environ["RAY_ADDRESS"] = cluster.address
for _ in range(2):
    try:
        main()
    except SystemExit as left:
        if left.code:
            raise
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_the_whole_pipeline_on_two_nodes_that_share_nothing_but_s3(plain, s3, s3_requests):
    """Twice: the second run skips every stage."""
    wide = ["resources.workers=2", "clustering.actors=2", "synthesis.actors=2"]
    given = [f"storage_path={s3}", *MINIATURE, *SMALL, *wide]
    command = [sys.executable, "-c", ON_TWO_NODES, "run", *given]
    done = subprocess.run(command, capture_output=True, text=True, env=own_ray())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert skipped(done.stderr) == USUAL
    config = miniature(Path("x"), *SMALL).model_copy(update={"storage_path": s3})
    run = open_run(config)
    # Two workers' packs are of other sizes than one's: products round otherwise, by a level.
    here, there = pixels(run.folder("synthesis")), pixels(f"{plain[0]}/mini/synthetic")
    assert here.keys() == there.keys() == plain[1].keys()
    for name, image in here.items():
        assert np.abs(image.astype(int) - there[name]).max() <= 1, name
    assert not [name for name in storage.sizes_below(run.root) if "partial" in name]
    assert not storage.exists(f"{run.root}/{LEASE}")
    verify(run.root, Progress())


def own_ray() -> dict[str, str]:
    """The environment without what this session's Ray set, for a Ray cluster of a test's own."""
    return {key: value for key, value in os.environ.items() if key not in LOCAL_ENVIRONMENT} | {
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="rn", dir="/tmp")
    }


MANY = ["synthesis.images_per_group=150", "synthesis.batch_size=16", "synthesis.rows_per_shard=50"]


@pytest.mark.slow
@pytest.mark.cluster
def test_an_object_store_is_asked_little(s3, s3_requests):
    """Requests of a generation that its folder's names are in: its inputs, blocks, shards, record.

    Before blocks were written by one request each: 1.3 an image, 21 a block.
    """
    given = [f"storage_path={s3}", *MINIATURE, *SMALL, *MANY]
    script = "from raysynth.cli import job; job('synthesis')"
    done = subprocess.run(
        [sys.executable, "-c", script, *given], capture_output=True, text=True, env=own_ray()
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    asked = [each for each in s3_requests() if "/synthetic-" in each]
    blocks = {
        each.rsplit("/", 1)[-1] for each in asked if each.startswith("PUT") and "/blocks/" in each
    }
    kinds = Counter(each.partition(" ")[0] for each in asked)
    print(f"{len(asked)} requests for 600 images in {len(blocks)} blocks: {dict(kinds)}")
    assert len(blocks) >= 38
    assert len(asked) <= 0.3 * 600 and len(asked) <= 6 * 38
