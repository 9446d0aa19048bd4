"""Every family: folders load, images equal its own pipeline's, adapters train as PEFT's do."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from raysynth.adapters.grouped_lora import inject
from raysynth.adapters.rows import flatten
from raysynth.config.config import Config
from raysynth.errors import ConfigError, ModelError
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base, layers_of
from raysynth.models.latents import decode
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_base
from raysynth.planning.denoiser_cost import unet_cost
from raysynth.storage.tables import encode_png
from raysynth.synthesis.checks import check_synthesis
from raysynth.synthesis.contrast import Contrast
from raysynth.synthesis.denoise import draw_noise
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.solver import check_solver
from raysynth.synthesis.task import Drawing
from tests.models.original_layout import in_one_file
from tests.models.random_families import SIDE, WRITERS, write_family

NAMES = tuple(WRITERS)
PROMPTS = ("a photo of a coat on grass", "a pullover")
NEGATIVE = "gravel"
RANK, ALPHA = 2, 3.0
STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("families")
    return {name: write_family(name, folder / name) for name in NAMES}


def section(folder: Path, **more: Any) -> BaseConfigSection:
    return BaseConfigSection(
        **{"name": str(folder), "device": "cpu", "dtype": "float32", "attention": "sdpa", **more}
    )


def adapters(base: Base, folder: Path, count: int = 3) -> tuple[Any, list[str]]:
    """Random adapters on every kind of layer, saved below a folder."""
    targets = layers_of(base.family, tuple(base.family.targets))
    targets |= base.family.text_targets if base.live else {}
    lora = inject(base.network, targets, RANK, ALPHA, count, base.prefix)
    dice = torch.Generator().manual_seed(3)
    for position in range(count):
        lora.reset(position, dice)
    for layer in lora.layers.values():
        # A network's own gates let through little at random weights.
        strength = 3.0 if base.family.title == "AuraFlow" else 0.3
        layer.B.data.copy_(torch.randn(layer.B.shape, generator=dice) * strength)
    names = [f"{number}-0" for number in range(count)]
    for position, name in enumerate(names):
        lora.save(position, str(folder / name))
    return lora, names


def generator(folder: Path, work: Path, names: list[str], **synthesis: Any) -> ImageGenerator:
    kind = load_base(section(folder), ("scheduler",)).family
    drawn = {"solver": "base", "steps": STEPS, "compile": False, "batch_size": 8}
    drawn["guidance"] = [{"name": "classifier_free", "interval": [0.0, 1.0]}]
    config = Config.model_validate(
        {
            "generator": "clustered_dreambooth" if names else "vanilla",
            "base": section(folder).model_dump(),
            "finetune": {
                "engine": "lora",
                "rank": RANK,
                "alpha": ALPHA,
                "targets": list(kind.targets),
                "text_encoder": False,
            },
            "synthesis": {**drawn, **synthesis},
        }
    )
    check_base(config.base)
    check_solver(config)
    return ImageGenerator(Drawing.of(config), str(work), names)


def drawn(generate: ImageGenerator, names: list[str], negative: str, seeds: list[int]) -> Any:
    prompts = [PROMPTS[seed % 2] for seed in seeds]
    return generate(prompts, [negative] * len(seeds), names, seeds).astype(int)


def of_pipeline(
    folder: Path, adapter: str, scale: float, negative: str | None, seeds: list[int]
) -> np.ndarray:
    """[B, side, side, 3] of the family's own pipeline from the same noise."""
    base = load_base(section(folder))
    pipe = base.family.pipeline(base)
    if adapter:
        pipe.load_lora_weights(adapter)
    return images_of(pipe, base, scale, negative, seeds)


def images_of(
    pipe: Any, base: Base, scale: float, negative: str | None, seeds: list[int]
) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    noise, _ = draw_noise(seeds, base.latent_shape)
    # diffusers' own loop: some take the noise as it is, others scale it themselves.
    found = pipe(
        [PROMPTS[seed % 2] for seed in seeds],
        negative_prompt=negative and [negative] * len(seeds),
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=base.family.pipeline_scale(scale),
        height=SIDE,
        width=SIDE,
        output_type="np",
    ).images
    return (found * 255).round()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_images_equal_the_familys_own_pipeline(folders, tmp_path, name, scale):
    seeds = [4, 7]
    expected = of_pipeline(folders[name], "", scale, NEGATIVE, seeds)
    generate = generator(folders[name], tmp_path, [], guidance_scale=scale)
    assert np.abs(drawn(generate, [""] * 2, NEGATIVE, seeds) - expected).max() <= 1
    assert expected.std() > 3, "an image that is all one colour would show nothing"


@pytest.mark.parametrize(("name", "unit"), [("stable_diffusion_xl", 4), ("auraflow", 8)])
def test_sizes_that_are_no_whole_patches_are_refused(folders, name, unit):
    config = Config.model_validate(
        {"base": section(folders[name]).model_dump(), "synthesis": {"image_size": unit * 5 - 1}}
    )
    with pytest.raises(ConfigError, match=rf"multiples of {unit} pixels.*image_size={unit * 5}$"):
        check_synthesis(config)


def test_levels_that_follow_the_size_are_those_of_its_pipeline(folders, tmp_path):
    """Z-Image's pipeline tells its scheduler how many patches an image has."""
    moving = shutil.copytree(folders["z_image"], tmp_path / "moving")
    file = moving / "scheduler" / "scheduler_config.json"
    sizes = {"base_image_seq_len": 4, "max_image_seq_len": 32}
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"use_dynamic_shifting": True} | sizes)
    )
    seeds = [4, 7]
    base = load_base(section(moving))
    pipe = base.family.pipeline(base)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(moving, subfolder="scheduler")
    expected = images_of(pipe, base, 4.0, NEGATIVE, seeds)
    generate = generator(moving, tmp_path, [], guidance_scale=4.0)
    assert np.abs(drawn(generate, [""] * 2, NEGATIVE, seeds) - expected).max() <= 1
    assert base.prediction.shift != 3.0
    larger = load_base(section(moving), ("scheduler",), size=2 * SIDE)
    assert larger.prediction.shift > base.prediction.shift


@pytest.mark.parametrize("name", NAMES)
def test_images_with_an_adapter_equal_its_pipeline_with_the_file(folders, tmp_path, name):
    _, names = adapters(load_base(section(folders[name])), tmp_path)
    generate = generator(folders[name], tmp_path, names, guidance_scale=3.0)
    seeds = [1, 2]
    plain = of_pipeline(folders[name], "", 3.0, NEGATIVE, seeds)
    expected = of_pipeline(folders[name], str(tmp_path / names[1]), 3.0, NEGATIVE, seeds)
    assert np.abs(expected - plain).max() > 8, "an adapter that changes nothing shows nothing"
    assert np.abs(drawn(generate, [names[1]] * 2, NEGATIVE, seeds) - expected).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_mixed_batch_use_their_own_adapters(folders, tmp_path, name):
    _, names = adapters(load_base(section(folders[name])), tmp_path)
    generate = generator(folders[name], tmp_path, names, guidance_scale=3.0)
    seeds, mine = list(range(5)), [names[i] for i in (2, 0, 1, 0, 2)]
    mixed = drawn(generate, mine, NEGATIVE, seeds)
    for each in names:
        rows = [row for row, adapter in enumerate(mine) if adapter == each]
        alone = drawn(generate, [each] * len(rows), NEGATIVE, [seeds[row] for row in rows])
        assert np.abs(mixed[rows] - alone).max() <= 1
    wrong = drawn(generate, [names[0]] * 5, NEGATIVE, seeds)
    assert np.abs(mixed[0] - wrong[0]).max() > 8, "adapters must differ for this test to see"


def losses(base: Base, network: Any, rows: int) -> torch.Tensor:
    """[rows] of noisy latents under the prompts, the same at every call."""
    dice = torch.Generator().manual_seed(5)
    x = torch.randn(rows, *base.latent_shape, generator=dice)
    told = base.condition([PROMPTS[row % 2] for row in range(rows)])
    timestep = torch.linspace(100, 900, rows).round()
    said = Denoiser(base, network)(x, timestep, told).raw
    return said.square().flatten(1).mean(1)


def apart(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """Length of the difference over that of the other."""
    return float((mine - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("size", [(SIDE, SIDE), (48, 16)], ids=["square", "tall"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_pack_equal_pefts_one_by_one(folders, tmp_path, name, size):
    base = load_base(section(folders[name], attention="plain")).at(*size)
    lora, names = adapters(base, tmp_path)
    rows = [0, 0, 1, 1, 2, 2]
    flat = flatten(lora.parameters(), lora.adapters)
    lora.route(rows)
    packed = losses(base, base.network, 6)
    packed.sum().backward()
    for position, each in enumerate(names):
        theirs = load_base(section(folders[name], attention="plain")).at(*size)
        pipe = theirs.family.pipeline(theirs)
        pipe.load_lora_weights(str(tmp_path / each))
        for parameter_name, parameter in theirs.model.named_parameters():
            parameter.requires_grad_("lora_" in parameter_name)
        alone = losses(theirs, theirs.model, 6)
        mine = [row for row, adapter in enumerate(rows) if adapter == position]
        torch.testing.assert_close(packed[mine], alone[mine], rtol=1e-4, atol=1e-6)
        alone[mine].sum().backward()
        found = dict(theirs.model.named_parameters())
        for layer_name, layer in lora.layers.items():
            for part, stack in (("lora_A", layer.A), ("lora_B", layer.B)):
                (key,) = [k for k in found if k.startswith(f"{layer_name}.{part}.")]
                assert apart(stack.grad[position], found[key].grad) < 1e-3
    assert flat.gradients.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_other_proportions_are_told_as_its_pipeline_tells_them(folders, name):
    base = load_base(section(folders[name])).at(48, 16)
    calls: list[dict[str, Any]] = []

    def note(_model: Any, _given: Any, named: dict[str, Any], _found: Any) -> None:
        calls.append(named)

    base.model.register_forward_hook(note, with_kwargs=True)
    drawn = base.family.drawn(base, PROMPTS[:1], 1, 1.0, [torch.Generator()])
    assert drawn.shape == (1, *base.latent_shape) and drawn.shape[2] == 3 * drawn.shape[3]
    losses(base, base.model, 1)
    pipeline, ours = (call.get("added_cond_kwargs") or {} for call in (calls[0], calls[-1]))
    assert pipeline.keys() == ours.keys() and (name == "stable_diffusion_xl") == bool(ours)
    for key, told in pipeline.items():
        torch.testing.assert_close(told.float(), ours[key].float())


def same_parts(one: Base, other: Base) -> bool:
    """Whether all weights of two bases are equal, and there are some."""
    modules = {part: m for part, m in one.parts.items() if isinstance(m, torch.nn.Module)}
    for part, module in modules.items():
        theirs = other.parts[part].state_dict()
        mine = module.state_dict()
        assert mine.keys() == theirs.keys()
        if not all(torch.equal(mine[name], theirs[name]) for name in mine):
            return False
    return len(modules) > 2


def without_weights(folder: Path, copy: Path, parts: tuple[str, ...]) -> Path:
    shutil.copytree(folder, copy)
    for part in parts:
        for file in (copy / part).glob("*.safetensors"):
            file.unlink()
    return copy


@pytest.mark.parametrize("name", NAMES)
def test_one_file_of_weights_replaces_a_folders(folders, tmp_path, name):
    """As published: all of Stable Diffusion's parts, a transformer alone."""
    file = in_one_file(name, folders[name], tmp_path / "weights.safetensors")
    whole = name.startswith("stable_diffusion")
    network = "unet" if whole else "transformer"
    encoders = ("vae", "text_encoder", "text_encoder_2") if whole else ()
    bare = without_weights(folders[name], tmp_path / "bare", (network, *encoders))
    one = section(bare, weights=str(file))
    check_base(one)
    assert same_parts(load_base(one), load_base(section(folders[name])))


@pytest.mark.parametrize("name", ["stable_diffusion_xl", "z_image"])
@pytest.mark.parametrize("harm", ["lacks", "shape", "other", "cut"])
def test_a_file_that_does_not_hold_the_network_is_refused(folders, tmp_path, name, harm):
    file = in_one_file(name, folders[name], tmp_path / "weights.safetensors")
    weights = load_file(file)
    begin = "model.diffusion_model." if name == "stable_diffusion_xl" else "layers."
    some = next(key for key in weights if key.startswith(begin) and weights[key].ndim == 2)
    if harm == "lacks":
        del weights[some]
    elif harm == "shape":
        weights[some] = weights[some][:-1].clone()
    elif harm == "other":
        weights = {"lora_unet_down.weight": torch.zeros(2)}
    save_file(weights, file)
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"^base\.weights: .*expected .*Fix: "):
        check_base(section(folders[name], weights=str(file)))


def test_a_file_as_base_name_says_what_to_write(folders, tmp_path):
    file = in_one_file("stable_diffusion_2", folders["stable_diffusion_2"], tmp_path / "a.st")
    with pytest.raises(ModelError, match=r"base\.name: .* is a file; .*Fix: .*base\.weights="):
        check_base(section(file))


@pytest.mark.parametrize("name", NAMES)
def test_shards_in_half_precision_load_as_whole_files_do(folders, tmp_path, name):
    base = load_base(section(folders[name]))
    half = shutil.copytree(folders[name], tmp_path / "half")
    for part, module in base.parts.items():
        if isinstance(module, torch.nn.Module):
            for file in (half / part).glob("*.safetensors"):
                file.unlink()
            half_part = copy.deepcopy(module).half()
            half_part.save_pretrained(half / part, variant="fp16", max_shard_size="20KB")
    assert len(list(half.glob("*/*fp16*00002-of-*.safetensors"))) > 0
    check_base(section(half))
    loaded = load_base(section(half))
    for part, module in base.parts.items():
        if isinstance(module, torch.nn.Module):
            theirs = loaded.parts[part].state_dict()
            for key, value in module.state_dict().items():
                expected = value.half().float() if value.is_floating_point() else value
                assert torch.equal(theirs[key], expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_networks_weights_are_its_own_and_all(folders, tmp_path, name):
    base = load_base(section(folders[name]), ("scheduler",))
    part = base.family.roles["model"][0]
    for harm in ("missing", "too many"):
        broken = shutil.copytree(folders[name], tmp_path / harm)
        (file,) = (broken / part).glob("*.safetensors")
        weights = load_file(file)
        if harm == "missing":
            del weights[sorted(weights)[0]]
        else:
            weights["adapter.weight"] = torch.zeros(3)
        save_file(weights, file, {"format": "pt"})
        with pytest.raises(ModelError, match=rf"^base\.name: {part}: .*expected .*Fix: "):
            check_base(section(broken))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_plan_counts_the_networks_numbers_and_products(folders, name, checkpointing):
    base = load_base(section(folders[name], attention="plain"))
    config = json.loads((folders[name] / base.prefix[:-1] / "config.json").read_text())
    config["sample_size"] = base.latent_shape[1]
    kinds = tuple(base.family.targets)
    tokens = 16
    cost = unet_cost(config, kinds, RANK, checkpointing, tokens, base.family)
    assert cost.parameters == sum(p.numel() for p in base.model.parameters())
    lora = inject(base.model, layers_of(base.family, kinds), RANK, ALPHA, 1)
    assert cost.trained == sum(p.numel() for p in lora.parameters())
    lora.route([0])
    told = base.family.blank(base.model, 1, tokens)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        base.family.predict(base.model, torch.zeros(1, *base.latent_shape), torch.ones(1), told)
    assert cost.forward == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert cost.training > (2.4 if checkpointing else 1.5) * cost.forward
    assert cost.activations > 0


def edited(folder: Path, work: Path, names: list[str], **synthesis: Any) -> np.ndarray:
    generate = generator(folder, work, names, **synthesis)
    dice = np.random.default_rng(0)
    pixels = dice.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    sources = pa.array([encode_png(image) for image in pixels])
    said = ["a coat on grass", "a pullover on gravel"]
    contrasts = [Contrast(said[0], said[1]), Contrast(said[1], said[0])]
    given = (said, [""] * 2, [names[0]] * 2, [1, 2], sources, contrasts)
    return generate(*given).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_real_images_are_edited_within_their_masks(folders, tmp_path, name):
    """No edit at all where nothing is to change, and other images with more noise."""
    _, names = adapters(load_base(section(folders[name])), tmp_path)
    both = {
        share: edited(
            folders[name],
            tmp_path,
            names,
            strength=share,
            solver="unipc",
            steps=2,
            gaussian_above=1.0,
        )
        for share in (0.2, 1.0)
    }
    assert both[0.2].shape == (2, SIDE, SIDE, 3)
    assert np.abs(both[0.2] - both[1.0]).max() > 8


@pytest.mark.parametrize(
    ("name", "wide"), [("stable_diffusion_xl", True), ("auraflow", True), ("z_image", False)]
)
def test_an_autoencoder_that_overflows_runs_in_float32_beside_others_in_float16(
    folders, name, wide
):
    base = load_base(section(folders[name], dtype="float16"), ("vae",))
    seen: list[torch.dtype] = []
    base.vae.decoder.conv_in.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    decode(base, torch.zeros(1, *base.latent_shape))
    assert seen == [torch.float32 if wide else torch.float16]
