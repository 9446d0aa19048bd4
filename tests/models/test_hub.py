"""Hub models: one commit for all workers, from the local cache where the hub is not asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from raysynth.config.files import load_config
from raysynth.errors import ModelError
from raysynth.models.hub import commits, pinned
from raysynth.models.sources import EMBEDDED
from raysynth.pipeline import stage_digests

OLD, NEW = "a" * 40, "b" * 40


def cached(home: Path, name: str, reference: str = "main") -> Path:
    """The hub's local cache of a model at two commits, `reference` being the newer one."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    for commit in (OLD, NEW):
        shutil.copytree(EMBEDDED / "clip", folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / reference).write_text(NEW)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_every_hub_model_of_a_run_is_pinned_once(home):
    cached(home, "one/clip")
    cached(home, "two/net", "v1")
    settings = ["base.clip=one/clip", "classifier.backbone=two/net", "classifier.revision=v1"]
    config = pinned(load_config(None, settings))
    assert config.base.clip_revision == config.classifier.revision == NEW
    assert config.base.revision is None and config.clustering.encoder_revision is None
    assert commits(config) == {"one/clip": NEW, "two/net": NEW}
    assert pinned(config) == config
    given = load_config(None, ["base.clip=three/clip", f"base.clip_revision={OLD}"])
    assert pinned(given) == given  # a commit needs no hub


def test_an_unknown_commit_is_refused_but_planned(home):
    config = load_config(None, ["clustering.encoder=no/where"])
    with pytest.raises(
        ModelError, match=r"clustering\.encoder_revision: the commit of no/where.*F"
    ):
        pinned(config)
    assert pinned(config, strict=False) == config


def test_digests_hold_commits_and_nothing_new_without(home):
    cached(home, "four/clip")
    plain, hub = load_config(), load_config(None, ["base.clip=four/clip"])
    assert pinned(plain) is plain
    at = load_config(None, ["base.clip=four/clip", f"base.clip_revision={OLD}"])
    one, other = stage_digests(hub), stage_digests(at)
    assert one["clustering"] != other["clustering"]
    assert one == stage_digests(pinned(hub))


@pytest.mark.slow
def test_workers_load_the_commit(tmp_path):
    folder = cached(tmp_path, "five/clip")
    config = folder / "snapshots" / OLD / "processor_config.json"
    found = json.loads(config.read_text())
    found["image_processor"]["image_mean"] = [0.1, 0.1, 0.1]
    config.write_text(json.dumps(found))
    code = (
        "from raysynth.config.config import BaseConfigSection as B\n"
        "from raysynth.models.clip import load_clip\n"
        f"print(*(load_clip(B(clip='five/clip', clip_revision=r)).mean[0] for r in {(OLD, NEW)}))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["0.1", "0.48"]
