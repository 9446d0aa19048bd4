"""GSURE: its formulas, rows that are whole, what is known of images in latents, what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from raysynth.config.files import load_config
from raysynth.datasets.damage import ENDING, KEPT, encoded_mask
from raysynth.errors import ConfigError
from raysynth.finetune import engines, training
from raysynth.finetune.checks import check_finetune
from raysynth.finetune.damaged import latent_noise, leak, missing_pixels, missing_positions
from raysynth.finetune.objectives.gsure import (
    Gsure,
    GsureKnobs,
    coefficient,
    projected_divergence,
    seen_at,
    weight_of,
)
from raysynth.finetune.packs import passes_of
from raysynth.finetune.training import train_pack
from raysynth.generators.inputs import training_inputs
from raysynth.generators.recipe import recipe_of
from raysynth.models.base import load_base
from raysynth.models.prediction import PREDICTIONS, Predicted, Prediction
from tests.finetune.conftest import laid
from tests.finetune.test_terms import FILE, equal, frozen_losses, quiet

GSURE = {"name": "gsure", "margin": 0}
FLOW = Prediction("flow_prediction", 1000, None)


# Its formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_the_mean_over_probes_is_the_trace_where_the_image_is_seen(kind):
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 4, 4, generator=dice, dtype=torch.float64)
    seen = (torch.rand(1, 1, 4, 4, generator=dice) > 0.3).expand(1, 2, 4, 4).double()
    if kind == "linear":
        matrix = torch.randn(32, 32, generator=dice, dtype=torch.float64)

        def clean(x):
            return (x.flatten(1) @ matrix.T).view_as(x)
    else:
        kernels = torch.randn(2, 2, 2, 3, 3, generator=dice, dtype=torch.float64)

        def clean(x):
            hidden = torch.tanh(torch.conv2d(x, kernels[0], padding=1))
            return torch.conv2d(hidden, kernels[1], padding=1)

    jacobian = torch.autograd.functional.jacobian(lambda y: clean(y).flatten(), x).view(32, 32)
    exact = (jacobian.diagonal() * seen.flatten()).sum()
    count = 4096
    many = x.expand(count, -1, -1, -1).clone().requires_grad_()
    probe = torch.randn(many.shape, generator=dice, dtype=torch.float64)
    found = projected_divergence(clean(many), many, seen.expand_as(many), probe, False)
    error = found.std() / count**0.5
    assert abs(found.mean() - exact) < 3 * error and error < 0.2 * abs(exact) + 1


@pytest.mark.parametrize("kind", ["flow_prediction", "epsilon"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_stein_s_coefficient_makes_the_error_of_the_clean_image_known(kind, share):
    """f = share * x: the noisy target's error and the divergence are the clean one's, + s0^2."""
    alphas = None if kind == "flow_prediction" else torch.linspace(0.999, 0.01, 1000)
    prediction, dice = Prediction(kind, 1000, alphas), torch.Generator().manual_seed(0)
    image, noise, added = torch.randn(3, 400_000, 1, 1, 1, generator=dice)
    sigma, timestep = torch.tensor([0.5]), torch.tensor([600])
    observed = image + 0.5 * noise
    signal, spread = prediction.levels(timestep)
    extra = ((spread / signal).square() - 0.25).sqrt()
    said = share * signal * (observed + extra * added)
    twice = coefficient("stein", prediction, timestep, sigma)
    found = (said - observed).square().mean() + twice * share
    assert found.item() - 0.25 == pytest.approx((said - image).square().mean().item(), abs=0.01)
    assert (coefficient("none", prediction, timestep, sigma) == 0).all()
    released = coefficient("released", prediction, timestep, sigma)
    assert 0 < released.item() < 2e-4
    if kind == "epsilon":
        assert released.item() == pytest.approx(2e-4 * (1 - alphas[600]).item(), rel=1e-4)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_level_weighs_what_it_does_in_the_base_s_own_loss(kind):
    alphas = None if kind == "flow_prediction" else torch.linspace(0.99, 0.01, 1000)
    prediction, timestep = Prediction(kind, 1000, alphas), torch.tensor([300, 700])
    clean, noise, wrong = torch.randn(3, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    x, target = prediction.noised(clean, noise, timestep)
    said = Predicted(prediction, x, timestep, target).moved(wrong)
    own = (said.raw - target).square().flatten(1).mean(1)
    of_clean = (said.clean - clean).square().flatten(1).mean(1)
    assert torch.allclose(own, weight_of(prediction, timestep) * of_clean, rtol=1e-3)


@pytest.mark.parametrize("kind", ["flow_prediction", "epsilon"])
def test_timesteps_are_raised_to_the_images_own_noise(kind):
    alphas = None if kind == "flow_prediction" else torch.linspace(0.999, 0.01, 1000)
    prediction = Prediction(kind, 1000, alphas)
    low = torch.tensor([10.0, 10.0, 900.0]) if alphas is None else torch.tensor([10, 10, 900])
    found = prediction.not_below(low, torch.tensor([0.0, 0.5, 0.5]))
    assert found[0] == low[0] and found[2] == low[2] and found.dtype == low.dtype
    ratio = prediction.noise_to_signal(found)[1]
    assert 0.5 - 1e-4 <= ratio < 0.51


# In a training ------------------------------------------------------------------------------------


def damage_all(room, folder, names=None, noise=40.0):
    """A copy of the room's real table with the left half of some images missing."""
    shutil.copytree(room.real, folder / "real", dirs_exist_ok=True)
    mask = np.ones((32, 32), bool)
    mask[:, :16] = False
    config = room.config()
    ids = [i for job in room.jobs(config) for i in job.ids]
    names = ids if names is None else names
    columns = [names, [encoded_mask(mask)] * len(names), [noise] * len(names)]
    table = pa.table(dict(zip(KEPT.names, columns, strict=True)), schema=KEPT)
    with pa.ipc.new_file(f"{folder}/real/train-00000{ENDING}", KEPT) as writer:
        writer.write_table(table)
    return replace(room, real=f"{folder}/real")


@pytest.fixture
def damaged(room, tmp_path):
    return damage_all(room, tmp_path)


def loop_of(room, work, **finetune):
    pack = room.pack(room.config(objective=GSURE, **finetune), work, ["0-0", "3-0"])
    loop = training.start(pack, pack.jobs)
    assert training._admit(loop, list(pack.jobs)) == {}
    phase = laid(loop).phase
    return loop, phase


def gradients(loop, phase, losses):
    loop.trainee.rows.gradients.zero_()
    loss = losses(loop, phase, 0)
    loss.sum().backward()
    return loss.detach(), loop.trainee.rows.gradients.clone()


def test_rows_of_whole_images_are_bit_for_bit_those_of_denoising(room, tmp_path):
    """The images of group 3 are whole."""
    ids = [i for job in room.jobs(room.config()) for i in job.ids if job.group == 0]
    some = damage_all(room, tmp_path, ids)
    loop, phase = loop_of(some, tmp_path / "work")
    own, plain = gradients(loop, phase, training.losses), gradients(loop, phase, frozen_losses)
    slot = {learner.job.group: number for number, learner in enumerate(loop.learners)}
    assert own[0][slot[3]] == plain[0][slot[3]] and own[0][slot[0]] != plain[0][slot[0]]
    row = [learner.slot for learner in loop.learners if learner.job.group == 3]
    torch.testing.assert_close(own[1][row], plain[1][row], rtol=1e-5, atol=1e-7)
    assert (own[1][row] != 0).any()


def test_the_network_sees_the_damage_and_no_more(damaged, tmp_path):
    loop, phase = loop_of(damaged, tmp_path / "work")
    batch = phase.noised(0, 0, loop.denoiser)
    missing, sigma = batch.images["missing"], batch.images["sigma"]
    assert missing.shape == (4, 1, 8, 8) and (sigma > 0).all()
    assert (missing.mean((1, 2, 3)) == 0.5).all()
    left = missing[:, 0, :, :4].mean((1, 2))
    assert set(left.tolist()) <= {0.0, 1.0}, "mirrored with its image"
    prediction = loop.base.prediction
    timestep = prediction.not_below(batch.timestep, sigma)
    x = seen_at(batch, timestep)
    _, spread = prediction.levels(timestep)
    gone = (missing > 0).expand_as(x)
    assert torch.equal(x[gone], (spread * batch.noise)[gone])
    probe = batch.draw_probe()
    assert torch.equal(probe, batch.draw_probe()) and not torch.equal(probe, batch.noise)
    moved = replace(batch, images={"missing": missing * 0, "sigma": sigma * 0})
    assert torch.allclose(seen_at(moved, batch.timestep), batch.x, atol=1e-4)


def test_what_is_hidden_teaches_nothing(damaged, tmp_path):
    """Latents at missing positions may be anything."""
    loop, phase = loop_of(damaged, tmp_path / "work")
    batch = phase.noised(0, 0, loop.denoiser)
    knobs = GsureKnobs()
    found = Gsure().losses(batch, loop.denoiser, knobs)
    gone = batch.images["missing"] > 0
    other = replace(batch, clean=torch.where(gone, 7.0, batch.clean))
    assert torch.equal(Gsure().losses(other, loop.denoiser, knobs), found)
    seen = replace(batch, clean=torch.where(gone, batch.clean, 7.0))
    assert not torch.equal(Gsure().losses(seen, loop.denoiser, knobs), found)


@pytest.mark.parametrize("more", [{}, {"prior_weight": 1.0, "prior_images": 2}])
def test_an_adapter_is_the_same_alone_packed_and_resumed(damaged, tmp_path, cut_off, more):
    given = {"learning_rate": 1e-2, "steps": 4, "objective": GSURE, **more}
    given |= {"patience": 9, "evaluate_steps": 2}

    def trained(work, names=None, **changed):
        config = damaged.config(**(given | changed))
        assert train_pack(damaged.pack(config, tmp_path / work, names), quiet) == {}
        return load_file(tmp_path / work / "3-0" / FILE)

    packed, alone = trained("packed", ["0-0", "3-0"]), trained("alone", ["3-0"])
    cut_off(lambda: trained("cut", ["3-0"]))
    resumed = trained("cut", ["0-0", "3-0"])
    plain = trained("plain", ["3-0"], objective="denoising")
    for key, tensor in packed.items():
        for other in (alone, resumed):
            torch.testing.assert_close(tensor, other[key], rtol=1e-2, atol=2e-3)
    assert any((packed[key] - plain[key]).abs().max() > 1e-3 for key in packed)
    told = json.loads((tmp_path / "packed" / "3-0" / "objective.json").read_text())
    assert told["missing"] == 0.5 and told["sigma"] > 0 and told["leak"] > 0
    assert not (tmp_path / "plain" / "3-0" / "objective.json").exists()


def test_full_weights_learn_from_damaged_images(damaged, tmp_path):
    given = {"engine": "full", "learning_rate": 1e-3, "prior_weight": 0}
    config = damaged.config("dreambooth", objective=GSURE, **given)
    pack = damaged.pack(config, tmp_path)
    assert train_pack(replace(pack, jobs=pack.jobs[:1]), quiet) == {}


def test_a_table_of_whole_images_is_refused_by_its_adapters(room, tmp_path):
    failed = train_pack(room.pack(room.config(objective=GSURE), tmp_path, ["3-0"]), quiet)
    assert "has a mask or noise" in failed["3-0"]


def test_without_it_nothing_is_asked_of_images(damaged, room, tmp_path):
    plain = {}
    for name, one in (("damaged", damaged), ("whole", room)):
        config = one.config(learning_rate=1e-2)
        assert train_pack(one.pack(config, tmp_path / name, ["3-0"]), quiet) == {}
        plain[name] = load_file(tmp_path / name / "3-0" / FILE)
    assert equal(plain["whole"], plain["damaged"])


# In latents ---------------------------------------------------------------------------------------


def test_positions_that_mix_missing_pixels_are_missing():
    mask = np.ones((32, 32), bool)
    mask[5, 5] = False
    hidden = missing_pixels([encoded_mask(mask), b""], 32)
    assert hidden.sum() == 1 and hidden[0, 0, 5, 5] == 1
    none, one = (missing_positions(hidden, 8, margin) for margin in (0, 1))
    assert none.shape == (2, 1, 8, 8) and none.sum() == 1 and none[0, 0, 1, 1] == 1
    assert one.sum() == 9 and one[0, 0, :3, :3].all() and not one[1].any()
    small = missing_pixels([encoded_mask(mask[:16, :16])], 32)
    assert 1 <= small.sum() <= 16, "scaled as its image is"


def test_noise_and_leak_are_measured_through_the_autoencoder(room):
    config = room.config()
    base, job = load_base(config.base, ("vae",)), room.jobs(config)[0]
    pixels = np.random.default_rng(0).integers(60, 190, (12, 32, 32, 3), np.uint8)
    noise = torch.full((12,), 20.0)
    found = latent_noise(base, pixels, noise, job, 0)
    assert found > 0 and found == latent_noise(base, pixels, noise, job, 0)
    assert latent_noise(base, pixels, noise * 2, job, 0) == pytest.approx(found, rel=0.3)
    assert latent_noise(base, pixels, noise * 0, job, 0) == 0
    mask = np.ones((32, 32), bool)
    mask[:, :16] = False
    hidden = missing_pixels([encoded_mask(mask)] * 12, 32)
    leaks = [leak(base, pixels, hidden, missing_positions(hidden, 8, m)) for m in (0, 1)]
    assert leaks[0] > leaks[1] >= 0, "places beside what is missing know more of it"
    assert leak(base, pixels, hidden * 0, hidden[:, :, :8, :8] * 0) is None


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"nothing is missing of the images of dataset\.name=outfits"),
        (["dataset.missing=0.3", "finetune.precision=float16"], r"finetune\.precision=bfloat16"),
        (["dataset.missing=0.3", "finetune.gradient_checkpointing=true"], r"checkpointing=false"),
        (["dataset.noise=9", "base.attention=sdpa"], r"got base\.attention=sdpa.*Fix: .*plain"),
        (["dataset.missing=0.3", "finetune.terms=[cbdm]"], r"Fix: finetune\.terms=\[\]"),
    ],
)
def test_what_it_has_no_use_for_is_refused(overrides, message):
    given = ["generator=shared", "finetune.objective=gsure", *overrides]
    with pytest.raises(ConfigError, match=message):
        check_finetune(load_config(None, given))


def test_what_it_costs_and_that_it_decides():
    given = ["dataset.missing=0.3", "finetune.objective=gsure"]
    config = load_config(None, ["generator=lora", *given])
    check_finetune(config)
    assert passes_of(recipe_of(config).training, config.finetune) == 2
    plain = load_config(None, ["generator=lora"])
    assert training_inputs(config) != training_inputs(plain)


def test_auto_is_no_float16_where_second_derivatives_leave_its_range(monkeypatch):
    monkeypatch.setattr(engines, "pick_dtype", lambda *_: torch.float16)
    base = load_config(None, []).base
    plain, second = (
        load_config(None, given).finetune
        for given in ([], ["finetune.objective=gsure", "dataset.missing=0.3"])
    )
    assert engines.precision_of(plain, base) == "fp16"
    assert engines.precision_of(second, base) == "no"
