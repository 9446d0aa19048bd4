"""One way to load base models: embedded, a Stable Diffusion 1.x folder, a CLIP folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModel

from pretraining.words import build_tokenizer
from raysynth.adapters.grouped_lora import inject
from raysynth.errors import ConfigError, ModelError
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.models.denoiser import Denoiser
from raysynth.models.device import pick_device, pick_dtype
from raysynth.models.latents import images_at_once
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import EMBEDDED, check_base, check_clip, resolve, variant_of
from tests.synthesis.random_models import write_clip


def section(name: Path | str = "embedded", **keys) -> BaseConfigSection:
    return BaseConfigSection(**{"name": str(name), "device": "cpu", "dtype": "float32", **keys})


@pytest.fixture(scope="module")
def sd1(tmp_path_factory) -> Path:
    """Stable Diffusion 1.5's configuration, only narrower, with random weights."""
    folder = tmp_path_factory.mktemp("sd1")
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        act_fn="silu",
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        downsample_padding=1,
        mid_block_scale_factor=1,
        norm_eps=1e-5,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def test_stable_diffusion_1_folder(sd1):
    check_base(section(sd1))
    base = load_base(section(sd1))
    assert base.latent_shape == (4, 8, 8) and base.image_size == 64
    assert type(base.scheduler) is PNDMScheduler
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training
    told = base.condition(["a photo of a coat", "", "a photo of a coat"])
    states = told["states"]
    assert states.shape == (3, base.shape.tokens, 16)
    assert torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])
    with torch.no_grad():
        predicted = Denoiser(base, base.model)(
            torch.randn(2, 4, 8, 8), torch.tensor(10), told.take([0, 1])
        )
    assert predicted.noise.shape == (2, 4, 8, 8)
    lora = inject(base.model, base.family.targets, 2, 2.0, 3)
    assert len(lora.layers) > 200


def test_text_states_are_the_pipelines(sd1):
    base = load_base(section(sd1))
    pipeline = StableDiffusionPipeline.from_pretrained(sd1)
    theirs, empty = pipeline.encode_prompt("a coat on grass", "cpu", 1, True)
    torch.testing.assert_close(base.condition(["a coat on grass"])["states"], theirs)
    torch.testing.assert_close(base.condition([""])["states"], empty)


def test_parts_and_attention(sd1):
    base = load_base(section(sd1, attention="sdpa"), ("model",))
    assert base.vae is None and base.parts["tokenizer"] is None and base.image_size == 64
    assert {type(p) for p in base.model.attn_processors.values()} == {AttnProcessor2_0}
    plain = load_base(section(sd1), ("model",))
    assert {type(p) for p in plain.model.attn_processors.values()} == {AttnProcessor}


@pytest.mark.parametrize("part", ["unet", "vae", "tokenizer"])
def test_folder_without_a_part_is_refused(sd1, tmp_path, part):
    shutil.copytree(sd1, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / part)
    with pytest.raises(ModelError, match=rf"lacks {part}/.*(?s:.*)expected\n  unet/config.json"):
        check_base(section(tmp_path / "model"))


def test_pickled_weights_are_refused(sd1, tmp_path):
    shutil.copytree(sd1, tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="safetensors"):
        check_base(section(tmp_path / "model"))


def test_parts_of_different_models_are_refused(sd1, tmp_path):
    shutil.copytree(sd1, tmp_path / "model")
    file = tmp_path / "model" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cross_attention_dim": 768}))
    with pytest.raises(ModelError, match=r"cross_attention_dim=768.*need 16"):
        check_base(section(tmp_path / "model"))


def test_broken_weights_are_refused(sd1, tmp_path):
    shutil.copytree(sd1, tmp_path / "model")
    (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="unet cannot be loaded"):
        load_base(section(tmp_path / "model"), ("model",))


def test_large_images_go_through_the_autoencoder_a_few_at_a_time():
    """64 images of 512 pixels at once took 30 GB on a GPU."""
    sizes = {32: 64, 512: 4, 768: 1, 2048: 1}
    assert {side: images_at_once(side, 64) for side in sizes} == sizes


def test_names():
    assert resolve("embedded") == str(EMBEDDED)
    assert resolve("embedded", clip=True) == str(EMBEDDED / "clip")
    assert resolve("owner/model") == "owner/model"
    with pytest.raises(ModelError, match=r"no folder \./nowhere"):
        resolve("./nowhere")
    with pytest.raises(ModelError, match=r"Fix: name it owner/model$"):
        resolve("hf://owner/model")
    with pytest.raises(ModelError, match=r"every node must see it\)$"):  # no hub id was meant
        resolve("/nowhere")


def test_a_name_that_is_no_hub_id_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("models/sd15") == "models/sd15"
    for name in ("sd15", "a/b/c"):
        with pytest.raises(ModelError, match=rf"base\.name: no folder {name}; .*owner/model"):
            resolve(name)
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match=r"base\.clip: no folder models/clip.*no folder models"):
        resolve("models/clip", clip=True)
    (tmp_path / "models" / "sd15").mkdir()
    assert resolve("models/sd15") == str(tmp_path / "models" / "sd15")


def test_weights_in_half_precision_only(sd1, tmp_path):
    """As `save_pretrained(variant="fp16")` leaves a folder, and half of the hub's downloads."""
    copy = shutil.copytree(sd1, tmp_path / "model")
    for path in copy.glob("*/*model.safetensors"):
        path.rename(path.with_name(path.name.replace("model.", "model.fp16.")))
    check_base(section(copy))
    half, whole = load_base(section(copy)), load_base(section(sd1))
    for part in ("unet", "vae", "text_encoder"):
        pairs = zip(half.parts[part].parameters(), whole.parts[part].parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    assert variant_of(sd1 / "unet") is None and variant_of(copy / "unet") == "fp16"
    (copy / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors").touch()
    assert variant_of(copy / "unet") is None, "weights without a variant come first"


def test_too_long_prompt_is_refused(sd1):
    base = load_base(section(sd1), ("text",))
    with pytest.raises(ConfigError, match=r"prompts\.template.*at most 24"):
        base.condition(["coat " * 30])


def test_embedded_base_loads_like_any_other():
    base = load_base(section(dtype="auto"))
    assert all(part is not None for part in base.parts.values())
    assert base.image_size == 32
    assert len(base.condition(["a photo of a coat on grass"])) == 1


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def test_clip_embeddings_are_normalised_and_ordered(clip_folder):
    clip = load_clip(section(clip=str(clip_folder)))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    images, texts = clip.images(pixels), clip.texts(["a coat", "a pullover on gravel"])
    assert images.shape == (3, 16) and texts.shape == (2, 16)
    assert images.dtype == texts.dtype == np.float32
    for vectors in (images, texts):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(clip.images(pixels[1:2])[0], images[1], atol=1e-5)
    np.testing.assert_allclose(clip.texts(["a coat"])[0], texts[0], atol=1e-5)


def test_clip_prepares_images_as_its_processor_does(clip_folder):
    clip = load_clip(section(clip=str(clip_folder)))
    smooth = np.linspace(0, 255, 64 * 48 * 3).reshape(64, 48, 3).astype(np.uint8)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    theirs = processor(Image.fromarray(smooth), return_tensors="pt")["pixel_values"]
    ours = clip._prepare(torch.from_numpy(smooth[None]))
    assert (ours - theirs).abs().max() < 0.05


def test_a_clip_in_half_precision_only(clip_folder, tmp_path):
    copy = shutil.copytree(clip_folder, tmp_path / "clip")
    (copy / "model.safetensors").rename(copy / "model.fp16.safetensors")
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    theirs, ours = (load_clip(section(clip=str(f))).images(pixels) for f in (clip_folder, copy))
    assert np.array_equal(theirs, ours)


def test_clip_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"base\.clip.*lacks config\.json"):
        check_clip(section(clip=str(tmp_path)))


def test_embedded_clip_loads_like_any_other():
    clip = load_clip(section())
    assert clip.images(np.zeros((1, 32, 32, 3), np.uint8)).shape[0] == 1


def test_device_that_is_not_there_is_refused():
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"base\.device: cannot use 'cuda'"):
            pick_device("cuda")
    with pytest.raises(ConfigError, match="cannot use 'toaster'"):
        pick_device("toaster")
    assert pick_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize(("own", "taken"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_only_emulates_bfloat16_takes_float16(monkeypatch, own, taken):
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or own

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_dtype("auto", torch.device("cuda")) is taken
