"""LoRA files and folders of them: what is found, by which names, and what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from raysynth.errors import ConfigError, ModelError
from raysynth.models.settings import BaseConfigSection
from raysynth.prompt_runs.adapters import WEIGHTS, find_adapters
from raysynth.prompt_runs.gathered import check_adapters
from raysynth.prompt_runs.lora_file import read_lora_file


def test_files_folders_and_folders_of_them_have_the_names_of_either(loras, tmp_path):
    assert list(find_adapters([str(loras)]).files) == ["larger", "mixed", "plain", "untold"]
    shutil.copy(loras / "plain" / WEIGHTS, tmp_path / "my style.safetensors")
    given = [str(loras / "mixed"), str(tmp_path / "my style.safetensors")]
    assert list(find_adapters(given).files) == ["mixed", "my-style"]
    assert next(iter(find_adapters([str(tmp_path), f"{loras}/"]).files)) == "my-style"
    assert list(find_adapters([str(loras), str(loras / "plain")]).files)[2:3] == ["plain"]
    assert find_adapters([]).shape.rank == 1
    run = shutil.copytree(loras, tmp_path / "run/adapters").parent
    (run / "adapters/adapters.json").write_text("[]")
    assert list(find_adapters([str(run)]).files) == ["larger", "mixed", "plain", "untold"]


def test_ranks_and_scales_are_each_layers_own(loras):
    mixed = read_lora_file(str(loras / "mixed" / WEIGHTS))
    found = {(name.rpartition(".")[2], one.rank, one.scale) for name, one in mixed.layers.items()}
    assert found == {("to_q", 3, 4 / 3), ("to_k", 2, 0.5)}
    larger = read_lora_file(str(loras / "larger" / WEIGHTS))
    assert {one.scale for one in larger.layers.values()} == {3 / 2}, "alpha / sqrt(rank)"
    untold = read_lora_file(str(loras / "untold" / WEIGHTS))
    assert {one.scale for one in untold.layers.values()} == {1.0} and not untold.text
    together = find_adapters([str(loras)])
    assert together.shape.rank == 4 and set(mixed.layers) < set(together.layers)


def test_what_is_no_adapter_is_refused(loras, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: no adapter; expected a \.safetensors file"):
        find_adapters([str(tmp_path / "nowhere")])
    other = shutil.copytree(loras / "mixed", tmp_path / "plain")
    with pytest.raises(ConfigError, match="two adapters are called 'plain'"):
        find_adapters([str(loras / "plain"), str(other)])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"lora_unet_mid.lora_down.weight": (2, 4)}, "half of one: lora_unet_mid; expected LoRA's"),
        ({"lora_unet_mid.hada_w1_a": (2, 4)}, "another kind of adapter.*hada_w1_a"),
        ({"weight": (2, 4)}, "no LoRA file of diffusers' form: it has weight"),
        ({"unet.a.lora_A.weight": (2, 4)}, "half of one: unet.a; expected LoRA's or DoRA's"),
    ],
)
def test_other_forms_are_named(tmp_path, tensors, said):
    file = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, file)
    with pytest.raises(ModelError, match=said):
        read_lora_file(str(file))


def test_files_that_are_not_whole_or_hold_no_numbers_are_refused(loras, tmp_path):
    data = (loras / "plain" / WEIGHTS).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-9])
    with pytest.raises(ModelError, match=r"cut\.safetensors: is no whole safetensors file"):
        read_lora_file(str(tmp_path / "cut.safetensors"))
    broken = {name: torch.full(s, torch.nan) for name, s in (("unet.a.lora_A.weight", (2, 4)),)}
    save_file(broken, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"8 of 8 weights that are no finite number"):
        read_lora_file(str(tmp_path / "nan.safetensors"))


def test_adapters_of_another_base_are_refused_before_anything_is_loaded(loras, tmp_path):
    check_adapters(find_adapters([str(loras)]), BaseConfigSection())
    layer = next(iter(find_adapters([str(loras / "plain")]).layers))
    for name, size, said in (
        (layer, 7, f"{layer} has 7 inputs and 7 outputs, the base's has"),
        ("unet.nowhere", 8, "adapts unet.nowhere, which the base has not. Fix: base.name="),
    ):
        pair = {f"{name}.lora_A.weight": (2, size), f"{name}.lora_B.weight": (size, 2)}
        file = tmp_path / f"{size}.safetensors"
        save_file({key: torch.zeros(shape) for key, shape in pair.items()}, file)
        with pytest.raises(ModelError, match=said):
            check_adapters(find_adapters([str(file)]), BaseConfigSection())
    with pytest.raises(ModelError, match="are of different bases"):
        find_adapters([str(loras / "plain"), str(tmp_path / "7.safetensors")])
