"""Images of `raysynth generate` are those of diffusers' own pipeline with the same LoRA file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raysynth.adapters.files import write_updates
from raysynth.adapters.foreign import read_file
from raysynth.models.settings import BaseConfigSection
from raysynth.prompt_runs.adapters import WEIGHTS, find_adapters
from raysynth.prompt_runs.gathered import check_adapters, network_of
from raysynth.prompt_runs.images import rows_of, task_of
from raysynth.prompt_runs.prompts import read_prompts
from raysynth.prompt_runs.settings import read_generate
from raysynth.publish.adapters import to_kohya
from raysynth.synthesis.actor import DiffusionSampler
from raysynth.synthesis.solver import build_solver
from tests.prompt_runs.adapters import pipeline, write_lora

PROMPTS = """\
prompt,negative,seed,count
a photo of a coat on grass,gravel,5,2
a photo of a bag on brick,,9,1
"""
STEPS, SCALE = 3, 4.0


def drawn(folder: Path, adapters: list[str], *settings: str) -> tuple[list[dict], np.ndarray]:
    """Specs and [B, side, side, 3] images, all in one batch."""
    (folder / "prompts.csv").write_text(PROMPTS)
    given = [f"synthesis.steps={STEPS}", f"synthesis.guidance_scale={SCALE}"]
    given += ["synthesis.scorers=[]", "base.dtype=float32", "base.device=cpu", *settings]
    config = read_generate(f"{folder}/prompts.csv", adapters, given, to=f"{folder}/run")
    prompts = read_prompts(config)
    found = find_adapters(prompts.paths)
    part, network = network_of(config.base)
    for name, file in found.files.items():
        write_updates(read_file(file.path, part, {part: network}), f"{folder}/stacked/{name}")
    rows = rows_of(config, prompts, found)
    sampler = DiffusionSampler(task_of(config, rows, f"{folder}/stacked", found.shape))
    specs = rows.specs(0, int(rows.counts.sum()))
    return specs.to_pylist(), sampler.draw(specs).astype(int)


def of_diffusers(
    rows: list[dict],
    file: str,
    solver: str = "dpmsolver++",
    size: tuple[int | None, int | None] = (None, None),
) -> np.ndarray:
    """The images of rows of one adapter by the pipeline."""
    pipe = pipeline()
    pipe.scheduler = build_solver(solver, pipe.scheduler)
    if file:
        pipe.load_lora_weights(file)
    found = pipe(
        [row["prompt"] for row in rows],
        negative_prompt=[row["negative_prompt"] for row in rows],
        generator=[torch.Generator().manual_seed(row["seed"]) for row in rows],
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        height=size[0],
        width=size[1],
        output_type="np",
    ).images
    return (found * 255).round().astype(int)


def test_mixed_ranks_scales_and_layers_equal_the_pipeline_one_by_one(loras, tmp_path):
    names = ["plain", "larger", "mixed", "untold"]
    specs, images = drawn(tmp_path, [str(loras / name) for name in names])
    assert [row["adapter"] for row in specs] == [name for name in names for _ in range(3)]
    assert [row["seed"] for row in specs[:3]] == [5, 6, 9]
    assert {(row["steps"], row["guidance_scale"]) for row in specs} == {(STEPS, SCALE)}
    for place, name in enumerate(names):
        own = slice(3 * place, 3 * place + 3)
        expected = of_diffusers(specs[own], str(loras / name))
        assert np.abs(images[own] - expected).max() <= 1, name
    assert np.abs(images[0] - images[3]).max() > 8, "the adapters must differ for this to be seen"


@pytest.mark.parametrize("solver", ["unipc", "base"])
def test_other_solvers_and_one_file_by_itself(loras, tmp_path, solver):
    specs, images = drawn(tmp_path, [str(loras / "plain" / WEIGHTS)], f"synthesis.solver={solver}")
    expected = of_diffusers(specs, str(loras / "plain"), solver)
    assert np.abs(images - expected).max() <= 1


@pytest.mark.parametrize("size", [(48, 24), (24, 40)])
def test_other_proportions_equal_the_pipeline(loras, tmp_path, size):
    given = f"size=[{size[0]},{size[1]}]"
    specs, images = drawn(tmp_path, [str(loras / "plain"), str(loras / "mixed")], given)
    assert images.shape[1:3] == size
    for place, name in ((0, "plain"), (3, "mixed")):
        own = slice(place, place + 3)
        expected = of_diffusers(specs[own], str(loras / name), size=size)
        assert np.abs(images[own] - expected).max() <= 1, name


def test_without_an_adapter_it_is_the_base(tmp_path):
    specs, images = drawn(tmp_path, [])
    assert [row["adapter"] for row in specs] == [""] * 3
    assert np.abs(images - of_diffusers(specs, "")).max() <= 1


def test_a_text_encoders_adapter_is_used_beside_one_without(loras, tmp_path):
    folder = write_lora(tmp_path / "text", 7, text=True, r=2, target_modules=["to_q"])
    specs, images = drawn(tmp_path, [str(folder), str(loras / "plain")])
    for place, file in ((0, folder), (3, loras / "plain")):
        expected = of_diffusers(specs[place : place + 3], str(file))
        assert np.abs(images[place : place + 3] - expected).max() <= 1


def test_kohyas_file_and_doras_are_mixed_with_others(loras, tmp_path):
    """The same updates under kohya's names draw the same; DoRA's as diffusers draws them."""
    dora = write_lora(
        tmp_path / "dora", 8, r=2, lora_alpha=4, use_dora=True, target_modules=["to_q", "conv1"]
    )
    given = {}
    for name in ("mixed", "larger"):
        part, network = network_of(BaseConfigSection())
        updates = read_file(str(loras / name), part, {part: network})
        given[name] = str(tmp_path / f"{name}-kohya.safetensors")
        save_file(to_kohya(updates), given[name])
    files = [*given.values(), str(dora), str(loras / "plain")]
    check_adapters(find_adapters(files), BaseConfigSection())
    specs, images = drawn(tmp_path, files)
    same = [loras / "mixed", loras / "larger", dora, loras / "plain"]
    for place, file in enumerate(same):
        own = slice(3 * place, 3 * place + 3)
        assert np.abs(images[own] - of_diffusers(specs[own], str(file))).max() <= 1, file
