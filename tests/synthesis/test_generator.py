"""One generating actor in this process: routing, guidance, solvers, equality with diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline

from raysynth.errors import ConfigError, ModelError
from raysynth.synthesis.actor import ImageGenerator, Synthesizer, Task
from raysynth.synthesis.banks import RUN, LoraBank
from raysynth.synthesis.denoise import draw_noise
from raysynth.synthesis.solver import build_solver, check_solver
from raysynth.synthesis.specs import plan_specs
from tests.synthesis.conftest import CLUSTERS, COUNTS, GROUPS, records

NAMES = tuple(f"{group}-{cluster}" for group, cluster in CLUSTERS)
PROMPT, NEGATIVE = "a photo of a sks coat on gravel", "grass"


def generator(config, folder: str, names=NAMES) -> ImageGenerator:
    return ImageGenerator(Task(config, GROUPS, folder, names, np.zeros((4, 16), np.float32)))


def images(generate: ImageGenerator, adapters: list[str], seeds: list[int]) -> np.ndarray:
    count = len(seeds)
    return generate([PROMPT] * count, [NEGATIVE] * count, adapters, seeds).astype(int)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("engine", ["lora", "full"])
def test_mixed_batches_equal_adapter_by_adapter(
    make_config, lora_folder, full_folder, engine, guidance
):
    config = make_config(finetune={"engine": engine}, synthesis={"guidance_scale": guidance})
    generate = generator(config, lora_folder if engine == "lora" else full_folder)
    adapters = [NAMES[i] for i in (0, 2, 1, 1, 0, 2, 2)]
    seeds = list(range(7))
    mixed = images(generate, adapters, seeds)
    for name in NAMES:
        rows = [row for row, adapter in enumerate(adapters) if adapter == name]
        alone = images(generate, [name] * len(rows), [seeds[row] for row in rows])
        assert np.abs(mixed[rows] - alone).max() <= 1
    wrong = images(generate, [NAMES[0]] * 7, seeds)
    assert np.abs(mixed[1] - wrong[1]).max() > 8, "the adapters must differ for this test to see"


def test_the_negative_half_uses_the_adapter_too(make_config, lora_folder):
    """diffusers' pipeline with one LoRA loaded, from the same latents, gives the same image."""
    config = make_config(synthesis={"guidance_scale": 4.0, "steps": 3})
    pipe = StableDiffusionPipeline.from_pretrained(
        config.base.name, safety_checker=None, feature_extractor=None
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_solver("dpmsolver++", pipe.scheduler)
    pipe.load_lora_weights(f"{lora_folder}/0-1")
    seeds = [5, 6]
    noise, _ = draw_noise(seeds, (4, 8, 8))
    expected = pipe(
        [PROMPT] * 2,
        negative_prompt=[NEGATIVE] * 2,
        latents=noise,
        num_inference_steps=3,
        guidance_scale=4.0,
        output_type="np",
    ).images
    got = images(generator(config, lora_folder), ["0-1"] * 2, seeds)
    assert np.abs(got - (expected * 255).round()).max() <= 1


@pytest.mark.parametrize("solver", ["dpmsolver++", "unipc", "base"])
def test_every_solver_finishes_and_keeps_the_flow(make_config, solver):
    config = make_config(finetune={"engine": "none"}, synthesis={"solver": solver})
    generate = generator(config, "", ())
    assert generate.solver.config.use_flow_sigmas
    first = images(generate, ["", ""], [1, 2])
    assert first.shape == (2, 32, 32, 3)
    assert np.array_equal(first, images(generate, ["", ""], [1, 2])), "the solver keeps no state"


def test_ddim_is_for_noise_and_velocity_models():
    assert isinstance(build_solver("ddim", DDPMScheduler()), DDIMScheduler)
    velocity = build_solver("ddim", DDPMScheduler(prediction_type="v_prediction"))
    assert velocity.config.prediction_type == "v_prediction"
    assert not build_solver("dpmsolver++", DDPMScheduler()).config.use_flow_sigmas


def test_ddim_refuses_a_flow(make_config):
    config = make_config(finetune={"engine": "none"}, synthesis={"solver": "ddim"})
    with pytest.raises(ConfigError, match=r"synthesis\.solver=ddim.*Fix: synthesis\.solver=dpm"):
        check_solver(config)


def test_other_image_sizes(make_config):
    config = make_config(finetune={"engine": "none"}, synthesis={"image_size": 48})
    assert images(generator(config, "", ()), [""], [1]).shape == (1, 48, 48, 3)


def test_noise_is_a_function_of_the_seed_alone():
    together, _ = draw_noise([3, 2**62 + 1, 9], (4, 8, 8))
    alone, _ = draw_noise([2**62 + 1], (4, 8, 8))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_mixed_rows_are_filled_up_to_whole_runs(make_config, lora_folder):
    bank = generator(make_config(), lora_folder).bank
    assert isinstance(bank, LoraBank)
    adapters = [NAMES[0]] * 11 + [NAMES[2]] * 3
    (rows,) = bank.parts(adapters)
    assert len(rows) == 3 * RUN
    assert sorted(set(rows.tolist())) == list(range(14))
    assert {adapters[row] for row in rows[: 2 * RUN]} == {NAMES[0]}
    assert len(bank.parts([NAMES[1]] * 5)[0]) == 5


def test_broken_weights_are_named(make_config, tmp_path):
    (tmp_path / "0-0").mkdir()
    for engine, missing in (("lora", "pytorch_lora_weights.safetensors"), ("full", "0-0/unet")):
        config = make_config(finetune={"engine": engine})
        with pytest.raises(ModelError, match=missing):
            images(generator(config, str(tmp_path), ("0-0",)), ["0-0"], [1])


def test_scores_are_cosines_to_prompt_and_centroid(make_config, lora_folder):
    config = make_config()
    centroids = np.eye(4, 16, dtype=np.float32)
    actor = Synthesizer(Task(config, GROUPS, lora_folder, NAMES, centroids))
    specs = plan_specs(config, records(config), GROUPS, COUNTS).take([0, 13, 26, 47])
    rows = actor(specs)
    pixels = np.stack([np.frombuffer(p, np.uint8) for p in rows["pixels"].to_pylist()])
    vectors = actor.score.clip.images(pixels.reshape(4, 32, 32, 3))
    texts = actor.score.clip.texts(
        [f"a photo of a {y} on {a}" for y in ("pullover", "coat") for a in ("grass", "gravel")]
    )
    label, centroid = (vectors * texts).sum(1), np.diag(vectors)
    assert np.allclose(rows["clip_label"].to_numpy(), label, atol=1e-5)
    assert np.allclose(rows["clip_centroid"].to_numpy(), centroid, atol=1e-5)
    assert np.allclose(rows["clip_score"].to_numpy(), (label + centroid) / 2, atol=1e-5)
