"""Checkpoints and adapters' records: what is cut off is made again, or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raysynth.adapters.record import (
    Adapter,
    maker_of,
    read_adapter,
    read_adapters,
    write_adapter,
    write_adapters,
)
from raysynth.errors import DamagedError
from raysynth.finetune.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.marks import Maker

ADAPTER = Adapter("0-0", "lora", "group_cluster", 0, 0, "coat", "grass", "a coat", 20, 4, 0.5)
CHECKPOINT = Checkpoint(
    **{name: torch.arange(5.0) for name in ("weights", "average")},
    optimizer={"state.z": torch.arange(5.0), "group.d": torch.tensor(0.1, dtype=torch.float64)},
    losses=torch.ones(3),
    best=torch.empty(0),
    step=3,
    best_loss=float("inf"),
    best_step=0,
)


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_checkpoint_comes_back(where, tmp_path, request):
    folder = str(tmp_path / "runs [v2]") if where == "disk" else request.getfixturevalue("s3")
    assert read_checkpoint(f"{folder}/0-0") is None
    write_checkpoint(CHECKPOINT, f"{folder}/0-0")
    found = read_checkpoint(f"{folder}/0-0")
    assert found.step == 3 and found.best_loss == float("inf") and found.best.shape == (0,)
    assert torch.equal(found.weights, CHECKPOINT.weights)
    assert found.optimizer.keys() == CHECKPOINT.optimizer.keys()
    assert found.optimizer["group.d"].item() == 0.1


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 40, None])
def test_a_checkpoint_that_is_cut_off_is_refused(tmp_path, content):
    write_checkpoint(CHECKPOINT, str(tmp_path))
    path = tmp_path / "checkpoint.safetensors"
    for size in (5, 30, 200, -1):
        data = path.read_bytes()
        path.write_bytes(data[:size] if content is None else content)
        with pytest.raises(DamagedError, match=r"checkpoint\.safetensors: cannot be read"):
            read_checkpoint(str(tmp_path))
        path.write_bytes(data)
    assert read_checkpoint(str(tmp_path)).step == 3


BROKEN = ["", "{", "[]", "null", "3", '{"name": "0-0"}', "[[1]]"]


@pytest.mark.parametrize("text", [*BROKEN, '{"stages": []}'])
def test_an_adapters_record_that_is_cut_off_is_trained_again(tmp_path, text):
    write_adapter(ADAPTER, str(tmp_path))
    assert read_adapter(str(tmp_path)) == ADAPTER
    Path(tmp_path, "adapter.json").write_text(text)
    assert read_adapter(str(tmp_path)) is None


@pytest.mark.parametrize("text", [t for t in BROKEN if t != "[]"])
def test_a_list_of_adapters_that_is_cut_off_is_named(tmp_path, text):
    write_adapters([ADAPTER], str(tmp_path))
    assert read_adapters(str(tmp_path)) == [ADAPTER]
    path = Path(tmp_path, "adapters.json")
    path.write_text(text)
    with pytest.raises(DamagedError, match=r"adapters\.json: not there, or not the list"):
        read_adapters(str(tmp_path))
    path.write_text(json.dumps([{**vars(ADAPTER), "steps": "four"}]))
    with pytest.raises(DamagedError, match=r"adapters\.json: not there, or not the list"):
        read_adapters(str(tmp_path))
    path.unlink()
    with pytest.raises(DamagedError, match=r"adapters\.json: not there"):
        read_adapters(str(tmp_path))


def test_images_name_their_adapter_by_its_one_file():
    hashes = {
        "adapters.json": "0",
        "0-0/adapter.json": "1",
        "0-0/pytorch_lora_weights.safetensors": "a",
        "1-0/unet/diffusion_pytorch_model-00001-of-00002.safetensors": "b",
        "1-0/unet/diffusion_pytorch_model-00002-of-00002.safetensors": "c",
    }
    found = maker_of(BaseConfigSection(name="/home/eve/sd15", revision="c0ffee"), hashes)
    assert found == Maker("sd15", "c0ffee", {"0-0": "a"})
