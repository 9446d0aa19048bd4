"""One generating actor in this process: routing, guidance, solvers, equality with diffusers."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline

from raysynth.adapters.banks import FOLD_ROWS, RUN, LoraBank
from raysynth.clustering.embed import read_centroids
from raysynth.errors import ConfigError, DamagedError, ModelError
from raysynth.models.loading import round_weights
from raysynth.synthesis.actor import Synthesizer
from raysynth.synthesis.denoise import draw_noise
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.solver import build_solver, check_solver
from raysynth.synthesis.task import PAYS_FROM, Drawing, Task
from tests.chaos.damage import cut, poison
from tests.synthesis.conftest import CLUSTERS, COUNTS, GROUPS, planned, records

NAMES = tuple(f"{group}-{cluster}" for group, cluster in CLUSTERS)
PROMPT, NEGATIVE = "a photo of a sks coat on gravel", "grass"


def generator(config, folder: str, names=NAMES) -> ImageGenerator:
    return ImageGenerator(Drawing.of(config), folder, names)


def images(generate: ImageGenerator, adapters: list[str], seeds: list[int]) -> np.ndarray:
    count = len(seeds)
    return generate([PROMPT] * count, [NEGATIVE] * count, adapters, seeds).astype(int)


def pipeline_images(pipe: StableDiffusionPipeline, seeds: list[int]) -> np.ndarray:
    """[B, side, side, 3] of diffusers' pipeline, from the same latents, three steps of scale 4."""
    noise, _ = draw_noise(seeds, (4, 8, 8))
    expected = pipe(
        [PROMPT] * len(seeds),
        negative_prompt=[NEGATIVE] * len(seeds),
        latents=noise,
        num_inference_steps=3,
        guidance_scale=4.0,
        output_type="np",
    ).images
    return (expected * 255).round()


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
    expected = pipeline_images(pipe, seeds)
    got = images(generator(config, lora_folder), ["0-1"] * 2, seeds)
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("solver", ["dpmsolver++", "unipc", "base"])
def test_every_solver_finishes_and_keeps_the_flow(make_config, solver):
    config = make_config(generator="vanilla", synthesis={"solver": solver})
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
    config = make_config(generator="vanilla", synthesis={"solver": "ddim"})
    with pytest.raises(ConfigError, match=r"synthesis\.solver=ddim.*Fix: synthesis\.solver=dpm"):
        check_solver(config)


def test_other_image_sizes(make_config):
    config = make_config(generator="vanilla", synthesis={"image_size": 48})
    assert images(generator(config, "", ()), [""], [1]).shape == (1, 48, 48, 3)


def test_noise_is_a_function_of_the_seed_alone():
    together, _ = draw_noise([3, 2**62 + 1, 9], (4, 8, 8))
    alone, _ = draw_noise([2**62 + 1], (4, 8, 8))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_calls_beside_each_other_read_prompts_as_one_does(make_config):
    """An actor prepares two batches at once; a tokenizer's padding is a state that calls share."""
    prompts = [f"a photo of a {word} coat on grass" for word in ("sks", "red", "blue", "grey", "")]
    alone = generator(make_config(generator="vanilla"), "", ())
    expected = [alone._text([prompt]) for prompt in prompts]
    for _ in range(10):
        together = generator(make_config(generator="vanilla"), "", ())
        with ThreadPoolExecutor(len(prompts)) as threads:
            found = list(threads.map(together._text, [[prompt] for prompt in prompts]))
        pairs = zip(found, expected, strict=True)
        assert all(torch.equal(one["states"], other["states"]) for one, other in pairs)


def test_many_rows_of_an_adapter_go_alone_and_the_rest_together(make_config, lora_folder):
    bank = generator(make_config(), lora_folder).bank
    assert isinstance(bank, LoraBank)
    few = FOLD_ROWS - 3
    adapters = [NAMES[0]] * few + [NAMES[1]] * FOLD_ROWS + [NAMES[2]]
    alone, mixed = bank.parts(adapters)
    assert [adapters[row] for row in alone] == [NAMES[1]] * FOLD_ROWS
    assert len(mixed) % RUN == 0, "the runs are filled up"
    assert [adapters[row] for row in mixed] == sorted(adapters[row] for row in mixed)
    assert sorted({*alone.tolist(), *mixed.tolist()}) == list(range(len(adapters)))
    assert [len(rows) for rows in bank.parts([NAMES[1]] * few)] == [few], "one needs no filling"
    assert bank.use([NAMES[1]] * 2, copies=2) is bank.folded.unet
    assert bank.use(NAMES[:2], copies=2) is bank.unet


def test_folded_is_what_diffusers_makes_of_the_adapter(make_config, lora_folder):
    """Folded = mixed = PEFT's layers, and folding another adapter leaves no trace of the first."""
    config = make_config()
    bank = generator(config, lora_folder).bank
    assert isinstance(bank, LoraBank)
    before = {n: layer.base.weight.clone() for n, layer in bank.lora.layers.items()}
    pipe = StableDiffusionPipeline.from_pretrained(config.base.name, safety_checker=None)
    torch.manual_seed(3)
    x, states, step = torch.randn(2, 4, 8, 8), torch.randn(2, 24, 32), torch.tensor(7)
    for name in (NAMES[1], NAMES[2], NAMES[1]):
        pipe.load_lora_weights(f"{lora_folder}/{name}")
        expected = pipe.unet(x, step, states).sample
        pipe.unload_lora_weights()
        folded = bank.use([name] * 2, copies=1)
        assert torch.allclose(folded(x, step, states).sample, expected, atol=1e-5)
        bank.use([name, NAMES[0]], copies=1)  # the other row makes this a mixed batch
        mixed = bank.unet(x, step, states).sample
        assert torch.allclose(mixed[:1], expected[:1], atol=1e-5)
    assert all(torch.equal(before[n], layer.base.weight) for n, layer in bank.lora.layers.items())


def test_weights_rounded_once_give_the_same_products(make_config):
    """What autocast would do at every call."""
    unet = generator(make_config(generator="vanilla"), "", ()).base.model
    x, states, step = torch.randn(2, 4, 8, 8), torch.randn(2, 24, 32), torch.tensor(7)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        expected = unet(x, step, states).sample
        round_weights(unet, torch.bfloat16)
        assert torch.equal(unet(x, step, states).sample, expected)


def test_decoding_a_few_at_a_time(make_config):
    whole = generator(make_config(generator="vanilla"), "", ())
    few = make_config(generator="vanilla", synthesis={"decode_batch_size": 2})
    difference = images(whole, [""] * 5, list(range(5))) - images(
        generator(few, "", ()), [""] * 5, list(range(5))
    )
    assert np.abs(difference).max() <= 1


@pytest.mark.slow
def test_compiled_batches_are_the_same_images(make_config, lora_folder, monkeypatch, tmp_path):
    """Full batches of one adapter are compiled, folded weights exchanged; others are not."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain = generator(make_config(), lora_folder)
    compiled = generator(make_config(synthesis={"compile": True}), lora_folder)
    assert compiled.compile is not None
    for adapters in ([NAMES[1]] * 8, [NAMES[2]] * 8, [NAMES[1]] * 3, [NAMES[0]] * 4 + [NAMES[2]]):
        seeds = list(range(len(adapters)))
        difference = images(plain, adapters, seeds) - images(compiled, adapters, seeds)
        assert np.abs(difference).max() <= 1
    assert len(compiled.compile._compiled) == 1


@pytest.mark.parametrize(
    ("asked", "images", "compiled"),
    [
        ("auto", 2 * PAYS_FROM, True),
        ("auto", 2 * PAYS_FROM - 1, False),
        ("auto", 0, False),
        (False, 10**9, False),
        (True, 0, True),
    ],
)
def test_compiling_by_itself_is_for_many_images_of_an_actor(make_config, asked, images, compiled):
    config = make_config(synthesis={"compile": asked, "actors": 2})
    task = Task.of(config, GROUPS, "", (), "", images=images)
    assert task.drawing.compiled is compiled


def test_a_node_without_compiler_compiles_nothing_unasked(make_config, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    drawing = replace(Drawing.of(make_config(generator="vanilla")), compiled=True)
    assert ImageGenerator(drawing, "", ()).compile is None


@pytest.mark.slow
def test_a_missing_compiler_is_named(make_config, monkeypatch, tmp_path):
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    config = make_config(generator="vanilla", synthesis={"compile": True})
    with pytest.raises(ModelError, match=r"synthesis\.compile.*Fix:"):
        images(generator(config, "", ()), [""] * 8, list(range(8)))


def test_broken_weights_are_named(make_config, tmp_path):
    (tmp_path / "0-0").mkdir()
    for engine, missing in (("lora", "pytorch_lora_weights.safetensors"), ("full", "0-0/unet")):
        config = make_config(finetune={"engine": engine})
        with pytest.raises(DamagedError, match=missing):
            images(generator(config, str(tmp_path), ("0-0",)), ["0-0"], [1])


@pytest.mark.parametrize("harm", [poison, cut])
def test_full_weights_that_cannot_be_used_are_damage(make_config, full_folder, tmp_path, harm):
    config = make_config(finetune={"engine": "full"})
    folder = shutil.copytree(Path(full_folder) / "3-0", tmp_path / "3-0")
    harm(folder / "unet" / "diffusion_pytorch_model.safetensors", random.Random(0))
    with pytest.raises(DamagedError, match=r"not finite|cannot be loaded") as refused:
        images(generator(config, str(tmp_path), ("3-0",)), ["3-0"], [1])
    assert refused.value.path == f"{tmp_path}/3-0/unet"


def test_scores_are_cosines_to_prompt_and_centroid(make_config, lora_folder, clusters_folder):
    config = make_config()
    actor = Synthesizer(Task.of(config, GROUPS, lora_folder, NAMES, clusters_folder))
    specs = planned(config, records(config), GROUPS, COUNTS).take([0, 13, 26, 47])
    rows = actor(specs)
    assert [span["part"] for span in rows["spans"][0].as_py()] == ["unet", "decode", "score"]
    pixels = np.stack([np.frombuffer(p, np.uint8) for p in rows["pixels"].to_pylist()])
    clip = actor.sampler.score.scoring.clip
    vectors = clip.images(pixels.reshape(4, 32, 32, 3))
    texts = clip.texts(
        [f"a photo of a {y} on {a}" for y in ("pullover", "coat") for a in ("grass", "gravel")]
    )
    label = (vectors * texts).sum(1)
    centroid = (vectors * read_centroids(clusters_folder)).sum(1)
    assert np.allclose(rows["clip_label"].to_numpy(), label, atol=1e-5)
    assert np.allclose(rows["clip_centroid"].to_numpy(), centroid, atol=1e-5)
    assert np.allclose(rows["clip_score"].to_numpy(), (label + centroid) / 2, atol=1e-5)
