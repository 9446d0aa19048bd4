"""Weights that are not there are refused, before loading and when loaded; real layouts are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, ViTConfig, ViTForImageClassification

from raysynth.config.files import load_config
from raysynth.errors import ModelError
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.models.encoder import load_encoder
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import EMBEDDED, check_base, check_clip, check_encoder
from raysynth.synthesis.solver import check_solver
from tests.synthesis.random_models import write_encoder

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
CLIP = "clip/model.safetensors"


@pytest.fixture
def model(tmp_path) -> Path:
    """The embedded base, and its CLIP, as a folder of somebody's."""
    return shutil.copytree(EMBEDDED, tmp_path / "model")


def section(model: Path) -> BaseConfigSection:
    return BaseConfigSection(
        name=str(model), clip=str(model / "clip"), device="cpu", dtype="float32"
    )


def check(model: Path, file: str) -> None:
    (check_clip if file.startswith("clip") else check_base)(section(model))


def load(model: Path, file: str) -> None:
    (load_clip if file.startswith("clip") else load_base)(section(model))


def rewrite(path: Path, change) -> None:
    pairs = (change(name, value) for name, value in load_file(path).items())
    save_file(dict(pair for pair in pairs if pair), path, {"format": "pt"})


@pytest.mark.parametrize(
    ("file", "cut"),
    [
        (CLIP, "visual_projection"),
        (TEXT, "final_layer_norm"),
        (UNET, "conv_in"),
        (VAE, "post_quant_conv"),
    ],
)
def test_missing_weights_are_refused(model, file, cut):
    check(model, file)
    rewrite(model / file, lambda name, value: None if cut in name else (name, value))
    for refused in (check, load):
        with pytest.raises(ModelError, match=rf"weights are missing: {cut}.*Fix"):
            refused(model, file)


def test_weights_of_another_shape_are_refused(model):
    rewrite(
        model / CLIP,
        lambda name, value: (name, value[:3].clone() if name.startswith("visual_p") else value),
    )
    with pytest.raises(ModelError, match=r"another shape: visual_projection\.weight \[3, "):
        check(model, CLIP)
    with pytest.raises(ModelError, match=r"base\.clip"):
        load(model, CLIP)


@pytest.mark.parametrize("file", [CLIP, UNET])
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[:100], "end before its header"),
        (lambda data: data[:-10], "cut off"),
        (
            lambda data: b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "Git LFS pointer.*git lfs pull",
        ),
        (lambda data: b"\x02" + bytes(7) + b"[]", "header cannot be read"),
    ],
)
def test_files_that_are_not_whole_are_refused_before_loading(model, file, broken, said):
    (model / file).write_bytes(broken((model / file).read_bytes()))
    with pytest.raises(ModelError, match=said):
        check(model, file)


def test_older_names_of_weights_are_the_model_s(model):
    """Stable Diffusion 1.5's text encoder has a prefix and a buffer that transformers dropped."""
    rewrite(model / TEXT, lambda name, value: (f"text_model.{name}", value))
    weights = load_file(model / TEXT) | {"text_model.embeddings.position_ids": torch.arange(24)}
    save_file(weights, model / TEXT, {"format": "pt"})
    check(model, TEXT)
    load(model, TEXT)


@pytest.mark.parametrize("shard", ["{stem}.fp16-0000{n}-of-00002", "{stem}-0000{n}-of-00002.fp16"])
def test_shards_in_half_precision_under_both_names(model, shard):
    stem, folder = "diffusion_pytorch_model", model / "unet"
    weights = load_file(model / UNET)
    (model / UNET).unlink()
    names, places = sorted(weights), {}
    for n, part in ((1, names[::2]), (2, names[1::2])):
        file = f"{shard.format(stem=stem, n=n)}.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = folder / f"{stem}.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    check(model, UNET)
    unet = load_base(section(model), ("model",)).model
    assert torch.equal(unet.conv_in.weight, weights["conv_in.weight"].float())
    (folder / places[names[0]]).unlink()
    with pytest.raises(ModelError, match=r"lacks .*named by"):
        check(model, UNET)
    index.write_text(json.dumps({"weight_map": {"a": "../../x.safetensors"}}))
    with pytest.raises(ModelError, match=r"names \.\./\.\./x\.safetensors"):
        check(model, UNET)


@pytest.mark.parametrize("file", ["unet", "vae", "text_encoder", "scheduler", "clip"])
@pytest.mark.parametrize("data", [b"{", b"[]", b'{"a": "\xe9"}'])
def test_configurations_that_are_no_mapping_are_refused(model, file, data):
    name = "scheduler_config.json" if file == "scheduler" else "config.json"
    (model / file / name).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{file}/{name}.*Fix"):
        check_solver(load_config(None, [f"base.name={model}"]))
        check(model, file)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_encoder", "hidden_size", None),
        ("unet", "sample_size", None),
        ("vae", "block_out_channels", 8),
        ("clip", "model_type", "clip_text_model"),
        ("clip", "model_type", "bert"),
    ],
)
def test_configurations_that_cannot_work_are_refused(model, part, key, value):
    file = model / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=rf"{part}/config\.json has {key}.*Fix"):
        check(model, part)


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "os.system"},
        {"prediction_type": "x"},
    ],
)
def test_schedulers_that_cannot_work_are_refused(model, change):
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=r"base\.name: .*scheduler"):
        check_solver(load_config(None, [f"base.name={model}"]))


def test_a_clip_without_pixel_statistics_is_refused(model):
    file = model / "clip" / "processor_config.json"
    found = json.loads(file.read_text())
    del found["image_processor"]["image_mean"]
    file.write_text(json.dumps(found))
    with pytest.raises(ModelError, match=r"base\.clip: .*image_mean=None"):
        check(model, CLIP)


def test_the_text_encoder_s_length_limits_a_tokenizer_that_does_not_say(model):
    for folder in ("tokenizer", "clip"):
        file = model / folder / "tokenizer_config.json"
        found = json.loads(file.read_text())
        del found["model_max_length"]
        file.write_text(json.dumps(found))
    base = load_base(section(model), ("text",))
    assert base.condition(["a coat"])["states"].shape[1] == 24 == base.shape.tokens
    clip = load_clip(section(model))
    assert clip.texts(["coat " * 60]).shape == (1, 64)


def test_an_encoder_s_setting_of_a_wrong_type_is_refused(tmp_path):
    folder = write_encoder(tmp_path, "vit")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"layer_norm_eps": "valid"}))
    with pytest.raises(ModelError, match=r"clustering\.encoder: .*layer_norm_eps"):
        check_encoder(str(folder))


def test_a_text_model_is_no_encoder(tmp_path):
    folder = write_encoder(tmp_path, "vit")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**shape, intermediate_size=32, vocab_size=50)).save_pretrained(folder)
    for refused in (check_encoder, lambda name: load_encoder(name, BaseConfigSection())):
        with pytest.raises(ModelError, match=r"BertModel, which takes input_ids"):
            refused(str(folder))


def test_an_encoder_with_another_model_s_weights_is_refused(tmp_path):
    folder, other = (write_encoder(tmp_path / kind, kind) for kind in ("vit", "dinov2"))
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    for refused in (check_encoder, lambda name: load_encoder(name, BaseConfigSection())):
        with pytest.raises(ModelError, match=r"clustering\.encoder: .*weights are missing"):
            refused(str(folder))


def test_a_classifier_is_an_encoder_without_its_head(tmp_path):
    folder = write_encoder(tmp_path, "vit")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**shape, intermediate_size=32, image_size=32, patch_size=8)
    ViTForImageClassification(config).save_pretrained(folder)
    check_encoder(str(folder))
    load_encoder(str(folder), BaseConfigSection())
