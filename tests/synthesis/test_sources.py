"""SDEdit: whose images are edited, how they travel, and what of them is left."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
)

from raysynth.errors import ConfigError, DataError, ModelError
from raysynth.progress import Progress
from raysynth.storage.tables import (
    REAL,
    decode_bytes,
    encode_png,
    read_table,
    with_groups,
    write_table,
)
from raysynth.synthesis.denoise import Edited, start_edit
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.shards import read_shards
from raysynth.synthesis.solver import build_solver, check_solver
from raysynth.synthesis.sources import SOURCE_IMAGE, attach_sources, deal_sources
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.stage import run_synthesis
from raysynth.synthesis.task import Drawing
from tests.synthesis.conftest import COUNTS, GROUPS, planned, shared_record

ALIGNED = (0, 3)
PROMPT = "a photo of a sks coat on gravel"


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> str:
    """Two files of flat images, a colour each; 20 of each aligned group and one of the others."""
    folder = str(tmp_path_factory.mktemp("real"))
    rows = [(g, n) for g in range(4) for n in range(20 if g in ALIGNED else 1)]
    for number, part in enumerate((rows[:15], rows[15:])):
        columns = {name: [] for name in REAL.names}
        for g, n in part:
            pixels = np.full((32, 32, 3), 10 * n + g, np.uint8)
            image = {"bytes": encode_png(pixels), "path": None}
            row = (f"g{g}n{n}", image, g // 2, g % 2, g, "train")
            for name, value in zip(REAL.names, row, strict=True):
                columns[name].append(value)
        table = pa.table(columns, schema=with_groups(REAL, GROUPS))
        write_table(table, f"{folder}/train-{number:05d}.parquet")
    return folder


@pytest.fixture(scope="module")
def members(real) -> pa.Table:
    table = read_table(real, ["id", "group"])
    return table.append_column("cluster", pa.array([0] * table.num_rows))


@pytest.fixture
def edit_config(make_config):
    def make(**sections):
        return make_config(generator="edit", **sections)

    return make


def test_sources_are_aligned_images_and_no_two_groups_share_one(members):
    dealt = deal_sources(members, GROUPS, COUNTS, seed=0)
    assert {g: len(ids) for g, ids in dealt.items()} == dict.fromkeys(range(4), 10)
    assert len({name for ids in dealt.values() for name in ids}) == 40
    for g, ids in dealt.items():
        aligned = ALIGNED[GROUPS.label(g)]
        assert all(name.startswith(f"g{aligned}n") for name in ids)
    shuffled = members.take(np.random.default_rng(1).permutation(members.num_rows))
    assert deal_sources(shuffled, GROUPS, COUNTS, seed=0) == dealt, "whatever the rows' order"
    assert deal_sources(members, GROUPS, COUNTS, seed=1) != dealt
    named = replace(GROUPS, aligned=(GROUPS.attribute_names[1], ""))
    with pytest.raises(DataError, match=r"group pullover/gravel has 1 training image"):
        deal_sources(members, named, COUNTS, seed=0)


def test_too_few_images_to_edit_are_refused(members):
    with pytest.raises(DataError, match=r"generator=edit.*pullover/gravel has 1 training"):
        deal_sources(members, GROUPS, [1, 9, 1, 9], seed=0)


def test_every_spec_gets_its_image_from_the_file_that_has_it(edit_config, real, members, tmp_path):
    dealt = deal_sources(members, GROUPS, COUNTS, seed=0)
    specs = planned(edit_config(), [shared_record()], GROUPS, COUNTS, dealt)
    counts = [
        attach_sources(specs, real, f"{real}/train-{n:05d}.parquet", f"{tmp_path}/{n}.parquet")
        for n in (0, 1)
    ]
    assert sum(counts) == specs.num_rows and min(counts) > 0
    table = read_table(str(tmp_path)).sort_by(ROW.name)
    assert table.select(specs.column_names).equals(specs)
    images = decode_bytes(table[SOURCE_IMAGE])
    for source, pixels in zip(table["source"].to_pylist(), images, strict=True):
        g, n = int(source[1]), int(source.split("n")[1])
        assert (pixels == 10 * n + g).all()


def sources(count: int) -> pa.Array:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return pa.array([encode_png(image) for image in images])


def test_equals_diffusers_image_to_image(edit_config):
    """Same noised latents, same steps, same guidance."""
    config = edit_config(synthesis={"steps": 3, "strength": 0.75, "guidance_scale": 2.0})
    generate = ImageGenerator(Drawing.of(config), "", ())
    seeds, encoded = [5, 6], sources(2)
    got = generate([PROMPT] * 2, ["grass"] * 2, [""] * 2, seeds, encoded).astype(int)
    (part,) = generate.prepare([PROMPT] * 2, ["grass"] * 2, [""] * 2, seeds, encoded)
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(
        config.base.name, safety_checker=None, feature_extractor=None
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_solver("dpmsolver++", pipe.scheduler)
    pipe.prepare_latents = lambda *_, **__: start_edit(
        pipe.scheduler, generate._edited(part), part.noise, 3
    )[0]
    expected = pipe(
        [PROMPT] * 2,
        image=torch.zeros(2, 3, 32, 32),
        negative_prompt=["grass"] * 2,
        num_inference_steps=4,
        strength=0.75,
        guidance_scale=2.0,
        output_type="np",
    ).images
    assert np.abs(got - (expected * 255).round()).max() <= 1


@pytest.mark.parametrize("solver", ["dpmsolver++", "unipc", "base"])
def test_less_strength_leaves_more_of_the_source(edit_config, solver):
    encoded = sources(4)
    ends = []
    for strength in (0.2, 0.6, 1.0):
        config = edit_config(synthesis={"solver": solver, "steps": 3, "strength": strength})
        generate = ImageGenerator(Drawing.of(config), "", ())
        parts = generate.prepare([PROMPT] * 4, [""] * 4, [""] * 4, [1, 2, 3, 4], encoded)
        before = generate._edited(parts[0]).latents
        ends.append(float((generate.denoise(parts) - before).square().mean()))
    assert ends[0] < ends[1] < ends[2]


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("dpmsolver++", DDPMScheduler()),
        ("dpmsolver++", EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1)),
        ("unipc", PNDMScheduler(skip_prk_steps=True)),
        ("ddim", DDIMScheduler(prediction_type="v_prediction")),
        ("base", FlowMatchEulerDiscreteScheduler()),
    ],
)
def test_noise_and_velocity_and_flow_models_begin_at_the_strength(name, scheduler, strength):
    solver = build_solver(name, scheduler, edits=True)
    clean, noise = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    noisy, timesteps = start_edit(solver, Edited(clean, strength), noise, 10)
    assert len(timesteps) == 10
    assert abs(float(timesteps[0]) / 1000 - strength) < 0.03
    if hasattr(solver, "alphas_cumprod"):
        assert torch.allclose(noisy, solver.alphas_cumprod[int(timesteps[0])].sqrt() * clean)
    else:
        assert torch.allclose(noisy, (1 - timesteps[0] / 1000) * clean)
    x = noisy
    for step in timesteps:
        x = solver.step(torch.zeros_like(x), step, x, return_dict=False)[0]
    assert x.isfinite().all()


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (PNDMScheduler(skip_prk_steps=True), "takes 11 evaluations for 10 steps"),
        (HeunDiscreteScheduler(), "takes 19 evaluations"),
        (DDIMScheduler(), "starts at noise level 900 of 1000"),
    ],
)
def test_a_base_solver_that_cannot_begin_anywhere_is_refused(scheduler, reason):
    assert build_solver("base", scheduler)
    with pytest.raises(ConfigError, match=f"{reason}.*Fix: synthesis.solver=dpmsolver"):
        build_solver("base", scheduler, edits=True)


@pytest.mark.slow
def test_the_stage_edits_and_says_what(
    ray_local, edit_config, shared_folder, clusters_folder, real, members, tmp_path
):
    clusters = shutil.copytree(clusters_folder, tmp_path / "clusters")
    write_table(members, f"{clusters}/clusters.parquet")
    config = edit_config(synthesis={"strength": 0.2})
    facts = run_synthesis(
        config, real, shared_folder, str(clusters), GROUPS, COUNTS, f"{tmp_path}/made", Progress()
    )
    table = read_shards(f"{tmp_path}/made")
    assert facts["rows"] == table.num_rows == 48
    dealt = deal_sources(members, GROUPS, COUNTS, config.seed)
    for g in range(4):
        mine = table.filter(pc.equal(table["group"], g))["source"].to_pylist()
        assert mine == [*dealt[g], *dealt[g][:2]]
    assert set(table["generator"].to_pylist()) == {"edit"}
    assert set(table["adapter"].to_pylist()) == {"shared"}
    assert SOURCE_IMAGE not in table.column_names


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("PNDMScheduler", ConfigError, "takes .* evaluations for 10 steps"),
        ("NoScheduler", ModelError, "unknown scheduler class 'NoScheduler'"),
    ],
)
def test_a_bases_own_solver_is_looked_at_before_anything_is_loaded(
    edit_config, tmp_path, kind, error, reason
):
    base = tmp_path / "base"
    shutil.copytree(edit_config().base.name, base)
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": kind, "num_train_timesteps": 1000}))
    config = edit_config(base={"name": str(base)}, synthesis={"solver": "base"})
    with pytest.raises(error, match=reason):
        check_solver(config)
