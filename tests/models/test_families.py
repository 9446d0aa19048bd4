"""Every family: folders load, images equal its own pipeline's, adapters train as PEFT's do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysynth.adapters.grouped_lora import inject
from raysynth.adapters.rows import flatten
from raysynth.config.config import Config
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base, layers_of
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_base
from raysynth.synthesis.denoise import draw_noise
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.solver import check_solver
from raysynth.synthesis.task import Drawing
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
    pipe.set_progress_bar_config(disable=True)
    if adapter:
        pipe.load_lora_weights(adapter)
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


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_pack_equal_pefts_one_by_one(folders, tmp_path, name):
    base = load_base(section(folders[name], attention="plain"))
    lora, names = adapters(base, tmp_path)
    rows = [0, 0, 1, 1, 2, 2]
    flat = flatten(lora.parameters(), lora.adapters)
    lora.route(rows)
    packed = losses(base, base.network, 6)
    packed.sum().backward()
    for position, each in enumerate(names):
        theirs = load_base(section(folders[name], attention="plain"))
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
