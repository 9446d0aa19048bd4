"""Transformers' single files: read back, and read by diffusers, to the same effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raysynth.adapters.files import write_updates
from raysynth.adapters.foreign import read_file
from raysynth.adapters.grouped_lora import inject
from raysynth.errors import ConfigError, ModelError
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.settings import BaseConfigSection
from raysynth.prompt_runs.adapters import find_adapters
from raysynth.prompt_runs.gathered import check_adapters
from raysynth.publish.adapters import to_kohya
from tests.adapters.test_forms import disturbed
from tests.models.random_families import write_family

NAMES = ("auraflow", "z_image")
RANK, ALPHA = 3, 4.5


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("transformers")
    return {name: write_family(name, folder / name) for name in NAMES}


def section(folder: Path) -> BaseConfigSection:
    return BaseConfigSection(name=str(folder), device="cpu", dtype="float32")


def base_of(folder: Path):
    return load_base(section(folder))


def updates_on(folder: Path, dora: bool = False, rslora: bool = False):
    """Updates of every layer of every kind."""
    base = base_of(folder)
    targets = dict(base.family.targets)
    lora = inject(base.network, targets, RANK, ALPHA, 1, base.prefix, dora=dora, rslora=rslora)
    lora.reset(0, torch.Generator().manual_seed(2))
    return disturbed(lora).updates(0)


def read(folder: Path, file: Path):
    return read_file(str(file), "transformer", {"transformer": base_of(folder).model})


def same_effect(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, update in mine.items():
        made = [u.form.scale * u.B @ u.A for u in (update, theirs[name])]
        torch.testing.assert_close(*made, rtol=1e-5, atol=1e-6)
        lengths = [u.M for u in (update, theirs[name])]
        assert (lengths[0] is None) == (lengths[1] is None)
        assert lengths[0] is None or torch.equal(*lengths)


def said(folder: Path, file: str) -> torch.Tensor:
    """What the network says, with an adapter in diffusers' pipeline."""
    base = base_of(folder)
    if file:
        base.family.pipeline(base).load_lora_weights(file)
    x = torch.randn(2, *base.latent_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        told = base.condition(["a photo of a coat on grass", "a pullover"])
        return Denoiser(base, base.model)(x, torch.full((2,), 500.0), told).raw


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_single_files_do_in_diffusers_what_folders_do(folders, tmp_path, name, rslora):
    updates = updates_on(folders[name], rslora=rslora)
    save_file(to_kohya(updates), tmp_path / "one.safetensors")
    write_updates(updates, str(tmp_path / "folder"))
    plain, single, folder = (
        said(folders[name], str(file))
        for file in ("", tmp_path / "one.safetensors", tmp_path / "folder")
    )
    torch.testing.assert_close(single, folder, rtol=1e-4, atol=1e-5)
    assert (single - plain).abs().max() > 1e-3
    same_effect(read(folders[name], tmp_path / "one.safetensors"), updates)
    check_adapters(find_adapters([str(tmp_path / "one.safetensors")]), section(folders[name]))


def test_names_are_those_that_comfyui_reads(folders):
    keys = to_kohya(updates_on(folders["z_image"]))
    assert {key.partition(".")[0] for key in keys} == {"diffusion_model"}
    assert "diffusion_model.layers.0.attention.to_q.lora_A.weight" in keys
    alphas = {float(value) for key, value in keys.items() if key.endswith(".alpha")}
    assert alphas == {ALPHA}
    other = to_kohya(updates_on(folders["auraflow"]))
    assert all(key.startswith("transformer.") and ".lora_" in key for key in other)


def test_doras_lengths_are_kept_where_there_is_a_name_for_them(folders, tmp_path):
    updates = updates_on(folders["z_image"], dora=True)
    save_file(to_kohya(updates), tmp_path / "one.safetensors")
    same_effect(read(folders["z_image"], tmp_path / "one.safetensors"), updates)
    with pytest.raises(ConfigError, match=r"--form=kohya: .*\(DoRA\).*Fix: --form peft"):
        to_kohya(updates_on(folders["auraflow"], dora=True))


def test_kohyas_names_are_read_with_alphas_of_their_own(folders, tmp_path):
    updates = updates_on(folders["z_image"])
    found = {}
    for number, (name, update) in enumerate(updates.items()):
        layer = "lora_unet_" + name.removeprefix("transformer.").replace(".", "_")
        found[f"{layer}.lora_down.weight"], found[f"{layer}.lora_up.weight"] = update.A, update.B
        found[f"{layer}.alpha"] = torch.tensor(1.0 + number)
    save_file(found, tmp_path / "kohya.safetensors")
    mine = read(folders["z_image"], tmp_path / "kohya.safetensors")
    assert mine.keys() == updates.keys()
    for number, (name, update) in enumerate(updates.items()):
        assert mine[name].form.alpha == 1.0 + number
        assert torch.equal(mine[name].A, update.A) and torch.equal(mine[name].B, update.B)


@pytest.mark.parametrize(
    "form", ["lora_unet_layers_0_attention_", "diffusion_model.layers.0.attention."]
)
def test_three_projections_as_one_layer_are_read_apart(folders, tmp_path, form):
    """The layout of the model's own code, which ComfyUI and kohya's trainers have."""
    updates = updates_on(folders["z_image"], dora=True)
    own = [updates[f"transformer.layers.0.attention.to_{x}"] for x in "qkv"]
    out = updates["transformer.layers.0.attention.to_out.0"]
    A = own[0].A
    found = {
        f"{form}qkv.lora_down.weight": A,
        f"{form}qkv.lora_up.weight": torch.cat([u.B for u in own]),
        f"{form}qkv.alpha": torch.tensor(6.0),
        f"{form}qkv.dora_scale": torch.cat([u.M for u in own])[:, None],
        f"{form}out.lora_down.weight": out.A,
        f"{form}out.lora_up.weight": out.B,
    }
    save_file(
        {key: value.contiguous() for key, value in found.items()}, tmp_path / "own.safetensors"
    )
    mine = read(folders["z_image"], tmp_path / "own.safetensors")
    layers = [f"transformer.layers.0.attention.to_{x}" for x in (*"kqv", "out.0")]
    assert sorted(mine) == sorted(layers)
    for letter, update in zip("qkv", own, strict=True):
        got = mine[f"transformer.layers.0.attention.to_{letter}"]
        assert torch.equal(got.A, A) and torch.equal(got.B, update.B)
        assert torch.equal(got.M, update.M) and got.form.alpha == 6.0
    assert mine[layers[-1]].form.scale == 1.0


def test_names_that_nobody_translates_are_refused(folders, tmp_path):
    keys = {
        f"lora_unet_double_layers_0_attn_w2q.lora_{x}.weight": torch.ones(2, 2)
        for x in ("down", "up")
    }
    save_file(keys, tmp_path / "kohya.safetensors")
    with pytest.raises(
        ModelError, match=r"AuraFlowTransformer2DModel diffusers translates no.*Fix"
    ):
        read(folders["auraflow"], tmp_path / "kohya.safetensors")
    save_file({"diffusion_model.layers.0.hada_w1_a": torch.ones(2)}, tmp_path / "loha.safetensors")
    with pytest.raises(ModelError, match=r"hada_w1_a is no low-rank update.*Fix"):
        read(folders["z_image"], tmp_path / "loha.safetensors")
    half = {"diffusion_model.layers.0.attention.to_q.lora_A.weight": torch.ones(2, 2)}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(ModelError, match=r"to_q is no low-rank update.*Fix"):
        read(folders["z_image"], tmp_path / "half.safetensors")
