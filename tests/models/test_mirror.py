"""Models on object storage: fetched once, whole, and anew when they are others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import s3fs
import torch

from raysynth.config.files import load_config
from raysynth.errors import ModelError, StorageError
from raysynth.models import mirror
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.models.encoder import load_encoder
from raysynth.models.mirror import located
from raysynth.models.settings import BaseConfigSection
from raysynth.models.single_file import SingleFile
from raysynth.models.sources import EMBEDDED, check_base, check_clip
from raysynth.networks.checks import check_backbone
from tests.synthesis.random_models import write_encoder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; nothing is known of earlier tests' mirrors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mirror._mirrored.cache_clear()
    yield tmp_path / "cache" / "raysynth" / "models"
    mirror._mirrored.cache_clear()


def put(folder: Path | str, uri: str) -> str:
    s3fs.S3FileSystem().put(f"{folder}/", uri, recursive=True)
    return uri


def asked_anew() -> None:
    """As a new process would."""
    mirror._mirrored.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def base(s3) -> BaseConfigSection:
    uri = put(EMBEDDED, f"{s3}/models/tiny")
    return BaseConfigSection(name=uri, clip=f"{uri}/clip/", device="cpu", dtype="float32")


def test_a_base_and_a_clip_are_those_of_the_folder(base, cache):
    check_base(base)
    check_clip(base)
    embedded = BaseConfigSection(device="cpu", dtype="float32")
    mine, own = load_base(base), load_base(embedded)
    for part in ("unet", "vae", "text_encoder"):
        got, expected = (found.parts[part].state_dict() for found in (mine, own))
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected)
    said = ["a photo of a coat"]
    assert np.array_equal(load_clip(base).texts(said), load_clip(embedded).texts(said))
    assert sorted(each.name[:5] for each in cache.iterdir() if each.is_dir()) == ["clip-", "tiny-"]
    assert cache.parent.stat().st_mode & 0o077 == 0, "notes of runs lie in it too"


def test_it_is_fetched_once_and_again_when_it_is_another(base, cache, s3_requests):
    first = located(base.name)
    fetched = sum("safetensors" in line for line in s3_requests() if line.startswith("GET"))
    assert fetched >= 4 and Path(first, "unet").is_dir()
    asked_anew()
    before = len(s3_requests())
    assert located(base.name) == first
    assert not any("safetensors" in line for line in s3_requests()[before:])
    config = json.loads((EMBEDDED / "model_index.json").read_text()) | {"_name": "another"}
    s3fs.S3FileSystem().pipe_file(f"{base.name}/model_index.json", json.dumps(config).encode())
    asked_anew()
    second = located(base.name)
    assert second != first
    assert json.loads(Path(second, "model_index.json").read_text())["_name"] == "another"
    assert Path(first).is_dir()  # a worker may be loading it


def test_processes_that_ask_at_once_fetch_it_once(base, s3_requests):
    program = "import sys; from raysynth.models.mirror import located; print(located(sys.argv[1]))"

    def ask(_: int) -> str:
        command = [sys.executable, "-c", program, base.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(3) as pool:
        assert len({*pool.map(ask, range(3))}) == 1
    weights = [line for line in s3_requests() if line.startswith("GET") and "unet/" in line]
    assert sum("safetensors" in line for line in weights) == 1


def test_what_no_model_is_loaded_from_stays_there(s3, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(EMBEDDED, folder)
    for name in ("unet/model.bin", "whole.safetensors", "whole.ckpt"):
        (folder / name).write_bytes(b"x")
    found = Path(located(put(folder, f"{s3}/tiny")))
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    left -= {str(path.relative_to(found)) for path in found.rglob("*")}
    assert left == {"unet/model.bin", "whole.safetensors", "whole.ckpt"}


def test_single_files_encoders_and_backbones_too(s3, tmp_path):
    weights = EMBEDDED / "unet" / "diffusion_pytorch_model.safetensors"
    uri = f"{s3}/unet.safetensors"
    s3fs.S3FileSystem().put_file(str(weights), uri)
    assert SingleFile(uri).path.read_bytes() == weights.read_bytes()
    folder, pixels = write_encoder(tmp_path, "vit"), np.zeros((2, 48, 40, 3), np.uint8)
    remote = put(folder, f"{s3}/vit")
    own = BaseConfigSection(device="cpu", dtype="float32")
    here, there = (load_encoder(str(name), own).images(pixels) for name in (folder, remote))
    assert np.array_equal(here, there)
    check_backbone(load_config(None, ["classifier.image_size=32", f"classifier.backbone={remote}"]))


def test_what_is_no_model_is_refused_and_not_fetched(s3, cache):
    files = s3fs.S3FileSystem()
    files.pipe_file(f"{s3}/photos/one.json", b"{}")
    for uri in (f"{s3}/photos", f"{s3}/nothing", f"{s3}/nothing.safetensors"):
        with pytest.raises(ModelError, match=r"base.name: no model at s3://.*Fix: check the URI"):
            check_base(BaseConfigSection(name=uri))
    with pytest.raises(ModelError, match=r"clustering.encoder: no model at s3://"):
        load_encoder(f"{s3}/photos", BaseConfigSection())
    with pytest.raises(ModelError, match=r"base.clip: strange://\S+ cannot be opened"):
        check_clip(BaseConfigSection(clip="strange://bucket/clip"))
    assert not cache.exists()


def test_a_file_that_comes_short_leaves_nothing_behind(base, cache, monkeypatch):
    whole = s3fs.S3FileSystem._get_file

    async def short(self, path, place, **more):
        await whole(self, path, place, **more)
        if path.endswith("vae/config.json"):
            Path(place).write_bytes(Path(place).read_bytes()[:-3])

    monkeypatch.setattr(s3fs.S3FileSystem, "_get_file", short)
    asked_anew()
    with pytest.raises(StorageError, match=r"vae/config.json has [\d,]+ bytes, [\d,]+ came"):
        located(base.name)
    assert not any(each.is_dir() for each in cache.iterdir())


def test_paths_ids_and_disks_are_as_they_were(tmp_path):
    assert located("owner/model") == "owner/model"
    assert located("hf://owner/model") == "hf://owner/model"
    assert located(f"file://{tmp_path}") == str(tmp_path)
