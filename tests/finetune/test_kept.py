"""What encoders say is kept while a job is trained: found again, never believed of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysynth.finetune import material
from raysynth.finetune.training import train_pack
from tests.finetune.test_families import apart
from tests.finetune.test_training import Killed, killed_after, quiet, weights


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Images that an autoencoder was given, by call."""
    calls: list[int] = []
    real = material.encode_images

    def watched(base, pixels, place, flips):
        calls.append(len(place))
        return real(base, pixels, place, flips)

    monkeypatch.setattr(material, "encode_images", watched)
    return calls


def cut(room, config, work: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        killed_after(patch, 3)
        with pytest.raises(Killed):
            train_pack(room.pack(config, work, ["0-0", "0-1"]), quiet)


@pytest.mark.parametrize("live", [False, True])
def test_a_training_that_goes_on_encodes_nothing_again(room, tmp_path, monkeypatch, encoded, live):
    config = room.config(steps=4, patience=9, evaluate_steps=2, text_encoder=live)
    train_pack(room.pack(config, tmp_path / "through", ["0-1"]), quiet)
    cut(room, config, tmp_path / "cut", monkeypatch)
    kept = sorted(path.name for path in (tmp_path / "cut" / ".encoded").iterdir())
    assert "0-1.safetensors" in kept and "0-1.held_out.safetensors" in kept
    encoded.clear()
    assert train_pack(room.pack(config, tmp_path / "cut", ["0-1", "0-0"]), quiet) == {}
    assert not encoded
    assert apart(weights(tmp_path / "through", "0-1"), weights(tmp_path / "cut", "0-1")) < 0.01
    assert not list((tmp_path / "cut" / ".encoded").iterdir()), "done, nothing is needed"


@pytest.mark.parametrize("harm", ["cut off", "not finite", "no key", "other prompt"])
def test_what_is_not_whole_or_not_of_this_job_is_encoded_again(
    room, tmp_path, monkeypatch, encoded, harm
):
    config = room.config(steps=4)
    train_pack(room.pack(config, tmp_path / "through", ["0-1"]), quiet)
    cut(room, config, tmp_path / "cut", monkeypatch)
    file = tmp_path / "cut" / ".encoded" / "0-1.safetensors"
    if harm == "cut off":
        file.write_bytes(file.read_bytes()[:-7])
    elif harm == "other prompt":
        other = room.config(steps=4).model_copy(
            update={"prompts": config.prompts.model_copy(update={"template": "{label}, {token}"})}
        )
        cut(room, other, tmp_path / "other", monkeypatch)
        file.write_bytes((tmp_path / "other" / ".encoded" / "0-1.safetensors").read_bytes())
    else:
        tensors = load_file(file)
        if harm == "not finite":
            tensors["moments"][0, 0, 0, 0, 0] = torch.nan
        save_file(tensors, file, {"key": "0"} if harm == "no key" else None)
    encoded.clear()
    assert train_pack(room.pack(config, tmp_path / "cut", ["0-1"]), quiet) == {}
    assert len(encoded) == 1
    assert apart(weights(tmp_path / "through", "0-1"), weights(tmp_path / "cut", "0-1")) < 0.01
