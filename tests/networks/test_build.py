"""Backbones: the small network, transformers models, save_pretrained."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from raysynth.config.config import Config
from raysynth.errors import ModelError
from raysynth.models.clip import load_clip
from raysynth.networks.build import blueprint_of
from raysynth.networks.checks import check_backbone
from raysynth.networks.linear import Head, linear_head
from raysynth.networks.network import Network, build_network
from raysynth.networks.pretrained import SmallResNet, normalisation
from raysynth.pipeline import stage_digests
from raysynth.storage.tables import decode_bytes, encode_png
from tests.training.tiny import (
    SIDE,
    tiny_blueprint,
    tiny_config,
    tiny_data,
    tiny_groups,
    tiny_images,
)


def built(config: Config, size: int = SIDE) -> Network:
    return build_network(blueprint_of(config), tiny_groups(), size, 0)


def small(seed: int = 0, *overrides: str):
    return build_network(tiny_blueprint(*overrides), tiny_groups(), SIDE, seed)


def tiny_transformer(kind: str, folder: str) -> str:
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": SIDE,
        "patch_size": 4,
    }
    if kind == "deit":
        config = DeiTConfig(**shape, num_labels=5)
        DeiTForImageClassificationWithTeacher(config).save_pretrained(folder)
    elif kind == "siglip":
        config = SiglipConfig(vision_config=shape, num_labels=5)
        SiglipForImageClassification(config).save_pretrained(folder)
    elif kind == "resnet":
        config = ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
        )
        ResNetForImageClassification(config).save_pretrained(folder)
    else:
        config = ViTConfig(**shape, num_labels=5)
        ViTForImageClassification(config).save_pretrained(folder)
    return folder


def test_weights_are_a_function_of_the_seed():
    first, again, other = (small(seed).state() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_logits_are_the_head_on_the_features():
    network = small()
    features, logits = network.outputs(tiny_data().validation)
    assert features.shape == (24, 16) and logits.shape == (24, 2)
    assert torch.allclose(network.head(features), logits, atol=1e-5)


def test_save_pretrained_round_trip_through_the_auto_classes(tmp_path):
    network = small()
    network.set_head(Head(torch.ones(2, 16), torch.tensor([0.5, -0.5])))
    images = tiny_data().validation
    expected = network.outputs(images)[1]
    network.save_pretrained(str(tmp_path))
    names = {file.name for file in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]

    model = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert isinstance(model, SmallResNet)
    assert model.config.id2label == {0: "a", 1: "b"}
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = [image.transpose(1, 2, 0) for image in images.pixels]
    with torch.no_grad():
        logits = model(**processor(pixels, return_tensors="pt")).logits
    assert torch.allclose(logits, expected, atol=1e-4)


def test_the_saved_processor_takes_the_centre_square_as_training_did(tmp_path):
    network = small()
    network.save_pretrained(str(tmp_path))
    rng = np.random.default_rng(0)
    photographs = [
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(sides)
        for sides in ((48, 24), (24, 60), (36, 36))
    ]
    column = pa.array([encode_png(np.asarray(image)) for image in photographs])
    ours = decode_bytes(column, SIDE).transpose(0, 3, 1, 2)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = processor(photographs, return_tensors="pt")["pixel_values"]
    assert np.abs(ours - (pixels * 127.5 + 127.5).numpy()).max() < 2.5  # of 255: one more rounding
    model = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    network.model.eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(ours))[1]
        assert torch.allclose(model(pixels).logits, expected, atol=0.02)


def test_a_transformer_at_another_size_is_saved_at_that_size(tmp_path):
    """As loaded by who knows nothing of it: no flag tells its forward to resize its positions."""
    folder = tiny_transformer("vit", str(tmp_path / "vit"))
    config = tiny_config(f"classifier.backbone={folder}", "classifier.image_size=20")
    check_backbone(config)
    images = tiny_images([2] * 4, tiny_groups(), 0, side=20)
    network = built(config, 20)
    expected = network.outputs(images)[1]
    own = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        x = torch.from_numpy(images.pixels) / 127.5 - 1
        resized = own.vit(pixel_values=x, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    assert torch.allclose(network.head(resized), expected, atol=1e-5)

    network.save_pretrained(str(tmp_path / "model"))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    pixels = [image.transpose(1, 2, 0) for image in images.pixels]
    with torch.no_grad():
        logits = model(**processor(pixels, return_tensors="pt")).logits
    assert model.config.image_size == 20 and torch.allclose(logits, expected, atol=1e-4)


def test_a_transformer_that_takes_one_size_only_is_refused_before_loading(tmp_path):
    folder = tiny_transformer("siglip", str(tmp_path / "siglip"))
    config = tiny_config(f"classifier.backbone={folder}", "classifier.image_size=20")
    check_backbone(tiny_config(f"classifier.backbone={folder}", f"classifier.image_size={SIDE}"))
    for check in (
        check_backbone,
        partial(built, size=20),
    ):
        with pytest.raises(ModelError, match=r"does not take images of 20 x 20 pixels .*Fix: clas"):
            check(config)
    assert built(config).head.out_features == 2


def test_a_model_of_two_heads_is_refused(tmp_path):
    """Validation would judge one of them, test the mean of both."""
    folder = tiny_transformer("deit", str(tmp_path / "deit"))
    config = tiny_config(f"classifier.backbone={folder}")
    for check in (
        check_backbone,
        built,
    ):
        with pytest.raises(ModelError, match=r"WithTeacher are not its last linear layer"):
            check(config)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_transformers_models_from_a_local_folder(kind, tmp_path):
    folder = tiny_transformer(kind, str(tmp_path / kind))
    network = build_network(
        tiny_blueprint(f"classifier.backbone={folder}"), tiny_groups(3, 2), SIDE, 0
    )
    features, logits = network.outputs(tiny_data(tiny_groups(3, 2)).validation)
    assert features.shape == (36, 16) and logits.shape == (36, 3)
    assert torch.allclose(network.head(features), logits, atol=1e-5)
    saved = AutoModelForImageClassification.from_pretrained(folder)
    body = {k: v for k, v in saved.state_dict().items() if not k.startswith("classifier")}
    state = network.state()
    assert all(torch.equal(state[key], value) for key, value in body.items())


def test_clip_is_a_linear_head_on_its_image_embeddings(tmp_path):
    config = tiny_config("classifier.backbone=clip", "base.dtype=float32")
    images = tiny_images([4] * 4, tiny_groups(), 0, side=32)
    network = built(config, 32)
    features, logits = network.outputs(images)
    known = load_clip(config.base).images(images.pixels.transpose(0, 2, 3, 1))
    unit = features / features.norm(dim=1, keepdim=True)
    assert torch.allclose(unit, torch.from_numpy(known), atol=1e-5)
    network.save_pretrained(str(tmp_path))
    again = build_network(tiny_blueprint(f"classifier.backbone={tmp_path}"), tiny_groups(), 32, 0)
    assert type(again.model) is type(network.model) and again.mean == network.mean
    assert torch.allclose(again.outputs(images)[1], logits, atol=1e-5)
    other = built(config, 24).outputs(tiny_images([1] * 4, tiny_groups(), 0, side=24))
    assert other[0].shape == (4, features.shape[1])  # another size than CLIP's: positions resized
    scratch = build_network(
        tiny_blueprint("classifier.backbone=clip", "classifier.start=scratch"), tiny_groups(), 32, 0
    )
    key = "clip.visual_projection.weight"
    assert not torch.equal(scratch.state()[key], network.state()[key])


def test_clip_as_a_backbone_is_the_run_s_own():
    """Another base.clip is another network, for a run that uses it and for no other."""
    used, again = ("classifier.backbone=clip", "base.clip=openai/clip-vit-base-patch32")
    plain, other = (stage_digests(tiny_config(*o)) for o in ((used,), (used, again)))
    assert plain["references"] != other["references"]
    plain, other = (stage_digests(tiny_config(*o)) for o in ((), (again,)))
    assert plain["references"] == other["references"]


def test_pretrained_false_keeps_the_shape_only(tmp_path):
    folder = tiny_transformer("resnet", str(tmp_path / "resnet"))
    network = build_network(
        tiny_blueprint(f"classifier.backbone={folder}", "classifier.start=scratch"),
        tiny_groups(),
        SIDE,
        0,
    )
    key = "resnet.embedder.embedder.convolution.weight"
    saved = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    assert not torch.equal(network.state()[key], saved[key])


def test_folder_without_a_model_is_refused_before_loading(tmp_path):
    config = tiny_config(f"classifier.backbone={tmp_path}")
    for named in (str(tmp_path), "resnet50", "~/nothing"):
        with pytest.raises(ModelError, match=r"classifier\.backbone: no config\.json"):
            check_backbone(tiny_config(f"classifier.backbone={named}"))
    check_backbone(tiny_config("classifier.backbone=microsoft/resnet-50"))
    with pytest.raises(ModelError, match="cannot load"):
        built(config)
    check_backbone(tiny_config())


def test_model_without_a_linear_head_is_refused():
    with pytest.raises(ModelError, match="no linear layer with 2 outputs"):
        linear_head(torch.nn.Sequential(torch.nn.Linear(4, 3)), 2)


def test_mixed_precision_is_close_to_full(tmp_path):
    images = tiny_data().validation
    full = small(0).outputs(images)[1].numpy()
    mixed = small(0, "classifier.precision=bfloat16").outputs(images)[1].numpy()
    assert np.abs(full - mixed).max() < 0.05
    assert np.abs(full - mixed).max() > 0


def test_a_training_process_of_the_small_network_never_imports_transformers():
    code = (
        "import sys, raysynth.training.units\n"
        "from tests.training.tiny import tiny_blueprint, tiny_config, tiny_groups\n"
        "from raysynth.networks.network import build_network\n"
        "build_network(tiny_blueprint(), tiny_groups(), 12, 0)\n"
        "print('transformers' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, ([0.5] * 3, [0.5] * 3)),
        ({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}, ([0.1] * 3, [0.2] * 3)),
        ({"do_normalize": False}, ([0.0] * 3, [1.0] * 3)),
    ],
)
def test_a_backbones_own_normalisation_is_taken(tmp_path, monkeypatch, own, expected):
    tiny_transformer("vit", str(tmp_path / "vit"))
    if own is not None:
        text = json.dumps({"image_processor_type": "ViTImageProcessor", **own})
        (tmp_path / "vit" / "preprocessor_config.json").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert normalisation(tiny_config("classifier.backbone=~/vit").classifier) == expected


def test_a_broken_image_processor_is_named(tmp_path):
    folder = tiny_transformer("vit", str(tmp_path / "vit"))
    (tmp_path / "vit" / "preprocessor_config.json").write_text("{")
    with pytest.raises(
        ModelError, match=r"classifier\.backbone's image processor cannot be loaded"
    ):
        normalisation(tiny_config(f"classifier.backbone={folder}").classifier)


def edited(folder: str, **changes) -> None:
    with open(f"{folder}/config.json") as file:
        found = json.load(file)
    with open(f"{folder}/config.json", "w") as file:
        json.dump(found | changes, file)


def rewritten(folder: str, keep) -> None:
    file = f"{folder}/model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if keep(name)}
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize("cut", ["embeddings.position_embeddings", "layernorm.weight"])
def test_a_backbone_without_some_weights_is_refused(tmp_path, cut):
    folder = tiny_transformer("vit", str(tmp_path / "vit"))
    rewritten(folder, lambda name: cut not in name)
    config = tiny_config(f"classifier.backbone={folder}")
    for check in (
        check_backbone,
        built,
    ):
        with pytest.raises(ModelError, match=rf"weights are missing: [\w.]*{cut}.*Fix"):
            check(config)
    scratch = ["classifier.start=scratch", "references.start=scratch"]
    check_backbone(tiny_config(f"classifier.backbone={folder}", *scratch))


def test_a_backbone_without_a_head_gets_a_new_one(tmp_path):
    folder = tiny_transformer("vit", str(tmp_path / "vit"))
    rewritten(folder, lambda name: not name.startswith("classifier."))
    config = tiny_config(f"classifier.backbone={folder}")
    check_backbone(config)
    assert built(config).head.out_features == 2


@pytest.mark.parametrize("text", ["{", "[]", "{}", b"\xe9", '{"model_type": "bert"}'])
def test_a_backbone_that_is_none_is_refused_before_loading(tmp_path, text):
    folder = tiny_transformer("vit", str(tmp_path / "vit"))
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "vit" / "config.json").write_bytes(data)
    with pytest.raises(ModelError, match=r"classifier\.backbone: .*config\.json.*Fix"):
        check_backbone(tiny_config(f"classifier.backbone={folder}"))


def test_a_backbone_with_patches_of_no_size_is_refused(tmp_path):
    folder = tiny_transformer("vit", str(tmp_path / "vit"))
    edited(folder, patch_size=0)
    with pytest.raises(ModelError, match=r"no model can be made of .*ZeroDivisionError"):
        check_backbone(tiny_config(f"classifier.backbone={folder}"))


def test_code_of_a_model_folder_is_never_run(tmp_path):
    """transformers would ask at the terminal, and take `y` for leave."""
    folder, marker = tmp_path / "evil", tmp_path / "ran"
    folder.mkdir()
    own = {"model_type": "custom_x", "auto_map": {"AutoConfig": "evil.C"}}
    (folder / "config.json").write_text(json.dumps(own))
    (folder / "evil.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom transformers import PretrainedConfig\n"
        "class C(PretrainedConfig):\n    model_type = 'custom_x'\n"
    )
    code = (
        "from raysynth.networks.checks import check_backbone\n"
        "from tests.training.tiny import tiny_blueprint, tiny_config\n"
        f"check_backbone(tiny_config('classifier.backbone={folder}'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], input="y\n", capture_output=True, text=True
    )
    assert "ModelError" in found.stderr and "no code of a model folder is ever run" in found.stderr
    assert "[y/N]" not in found.stdout + found.stderr and not marker.exists()
    with pytest.raises(ModelError, match=r"transformers cannot load"):
        build_network(tiny_blueprint(f"classifier.backbone={folder}"), tiny_groups(), SIDE, 0)
    assert not marker.exists()


def test_a_known_model_that_brings_code_is_the_library_s_own(tmp_path):
    folder = tiny_transformer("vit", str(tmp_path / "vit"))
    (tmp_path / "vit" / "evil.py").write_text("raise SystemExit")
    auto = {"AutoConfig": "evil.C", "AutoModelForImageClassification": "evil.M"}
    edited(folder, auto_map=auto)
    config = tiny_config(f"classifier.backbone={folder}")
    check_backbone(config)
    assert isinstance(built(config).model, ViTForImageClassification)


def test_timm_s_own_normalisation_is_taken(tmp_path):
    own = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    classifier = tiny_config(f"classifier.backbone={tmp_path}").classifier
    assert normalisation(classifier) == ([0.1] * 3, [0.2] * 3)
    (tmp_path / "config.json").write_text(json.dumps(own | {"pretrained_cfg": {"mean": 0.5}}))
    with pytest.raises(ModelError, match=r"classifier\.backbone: .*image_mean=0\.5"):
        normalisation(classifier)
