"""`raysynth pretrain`: refusals before Ray; two workers; a finished base costs nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysynth.jobs.status import read_status
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_base, check_clip
from raysynth.storage.files import open_storage
from tests.cluster.signals import at_work, ends_soon
from tests.pretraining.conftest import SMALL


def pretrain(
    pictures: Path, folder: Path | str, *settings: str
) -> subprocess.CompletedProcess[str]:
    own = ("dataset.name=tree", f"dataset.path={pictures}", f"storage_path={folder}", "name=own")
    command = [sys.executable, "-m", "raysynth", "pretrain", *own, *SMALL, *settings]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_refusals_come_before_ray_and_a_rehearsal_writes_nothing(pictures, tmp_path):
    refused = pretrain(pictures, tmp_path, "resources.workers=3")
    assert refused.returncode == 2
    assert "Fix: pretraining.clip.batch_size=18" in refused.stderr
    told = pretrain(pictures, tmp_path, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "images: 100 to learn from, 16 held out, 32 pixels" in told.stdout
    assert "memory of a worker" in told.stdout and "minutes" in told.stdout
    assert "torchvision" not in told.stderr and not told.stderr, "no library speaks besides"
    much = pretrain(pictures, tmp_path, "resources.cpus_per_worker=4096", "--dry-run")
    assert much.returncode == 2 and "resources" in much.stderr and "Fix: " in much.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "own-base").symlink_to(pictures)
    inside = pretrain(pictures, tmp_path, "--dry-run")
    assert inside.returncode == 2 and "lies inside dataset.path" in inside.stderr


@pytest.mark.slow
@pytest.mark.cluster
def test_two_workers_make_a_base_and_make_it_once(pictures, tmp_path):
    made = pretrain(pictures, tmp_path, "resources.workers=2")
    assert made.returncode == 0, made.stderr
    assert "Use it: base.name=" in made.stdout and "PSNR" in made.stdout
    root = tmp_path / "own-base"
    status = read_status(str(root))
    assert status.state == "finished" and status.record["stages"][-1] == "bars"
    assert "autoencoder" in "".join(file.read_text() for file in (root / "log").iterdir())
    before = sorted(root.rglob("*"))
    again = pretrain(pictures, tmp_path, "resources.workers=2")
    assert again.stdout == made.stdout and "starting" not in again.stderr
    assert sorted(root.rglob("*")) == before
    (root / "bars.json").unlink()
    resumed = subprocess.run(
        [sys.executable, "-m", "raysynth", "resume", str(root)], capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == made.stdout, "from its own configuration, and its checkpoints"


@pytest.mark.slow
@pytest.mark.cluster
def test_a_base_on_an_object_store_is_made_gone_on_with_and_loads(pictures, tmp_path, s3):
    made = pretrain(pictures, s3, "pretraining.preview_steps=2")
    assert made.returncode == 0, made.stderr
    root = f"{s3}/own-base"
    assert read_status(root).state == "finished"
    storage, path = open_storage(root)

    def made_of() -> list[str]:
        storage.invalidate_cache()
        found = sorted(name.removeprefix(f"{path}/") for name in storage.find(path))
        return [name for name in found if name.startswith(("base/", "stages/", "previews/"))]

    files = made_of()
    assert {name.partition("/")[0] for name in files} == {"base", "stages", "previews"}
    storage.rm_file(f"{path}/bars.json")
    again = pretrain(pictures, s3, "pretraining.preview_steps=2")
    assert again.returncode == 0, again.stderr
    assert again.stdout == made.stdout, "from its checkpoints"
    assert made_of() == files
    assert f"Use it: base.name={root}/base base.clip={root}/base/clip" in made.stdout
    own = BaseConfigSection(name=f"{root}/base", clip=f"{root}/base/clip")
    check_base(own)
    check_clip(own)
    assert load_base(own).image_size and load_clip(own).size


@pytest.mark.slow
@pytest.mark.cluster
def test_a_base_that_is_being_made_ends_soon_after_a_signal(pictures, tmp_path):
    own = ("dataset.name=tree", f"dataset.path={pictures}", f"storage_path={tmp_path}", "name=own")
    clip = "pretraining.clip={width: 16, layers: 1, text_width: 16, steps: 100000, batch_size: 16}"
    given = ["pretrain", *own, *SMALL, clip, "resources.workers=2"]
    for number in (signal.SIGTERM, signal.SIGINT):
        met = at_work(tmp_path / "own-base", "clip-joint")
        ends_soon(given, tmp_path / f"out-{number}", met, number)
