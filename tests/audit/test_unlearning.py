"""Models without a group: their loss, their anchors, their batches, and what they forget."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysynth.adapters.record import read_adapter
from raysynth.audit.methods.guda import GudaKnobs
from raysynth.audit.unlearning import (
    anchor_shares,
    anchors_of,
    full_models,
    redirection,
    unlearners,
    weights,
)
from raysynth.finetune.draws import draw, noise_of
from raysynth.finetune.training import train_pack
from raysynth.groups.groups import Groups
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.prediction import Predicted, Prediction
from tests.audit.conftest import KNOBS, LORA, lesson, quiet
from tests.finetune.conftest import GROUPS

FILE = "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_the_loss_is_a_distance_of_noises_for_every_prediction_type(kind):
    dice = torch.Generator().manual_seed(0)
    clean, noise, one, two = torch.randn(4, 2, 3, 2, 2, generator=dice, dtype=torch.float64)
    flow = kind == "flow_prediction"
    known = Prediction(kind, 1000, None if flow else torch.tensor([0.36], dtype=torch.float64))
    t = torch.full((2,), 400.0 if flow else 0.0, dtype=torch.float64)
    signal, spread = known.levels(t)
    x, _ = known.noised(clean, noise, t)

    def said(guess):
        """What a base says that takes the noise for `guess`."""
        seen = (x - spread * guess) / signal
        raw = {
            "epsilon": guess,
            "sample": seen,
            "v_prediction": signal * guess - spread * seen,
            "flow_prediction": guess - seen,
        }[kind]
        return Predicted(known, x, t, raw)

    wanted = (one - two).square().flatten(1).mean(1)
    torch.testing.assert_close(redirection(said(one), said(two)), wanted)


def test_the_full_model_is_not_taught():
    known = Prediction("epsilon", 1, torch.tensor([0.5]))
    own, full = torch.ones(2, 1, 1, 1, 1, requires_grad=True).unbind()
    x, t = torch.zeros(1, 1, 1, 1), torch.zeros(1)
    found = redirection(Predicted(known, x, t, own), Predicted(known, x, t, 3 * full))
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(found.sum(), full, retain_graph=True)
    assert torch.autograd.grad(found.sum(), own)[0].item() == -4


def test_the_weighted_mean_is_one_mean_and_preserve_times_the_other():
    forget = np.array([[True, True, False, False, False]])
    errors = np.array([[2.0, 4.0, 3.0, 6.0, 9.0]])
    assert (weights(forget, 0.5) * errors).mean() == pytest.approx(3.0 + 0.5 * 6.0)
    assert weights(forget, 1.0).dtype == np.float32


def test_anchors_are_drawn_by_likeness_and_evenly():
    similar = np.array([0.9, 0.4])
    ratio = np.exp(2 * 0.5)
    likely = ratio / (1 + ratio)
    found = anchor_shares(similar, beta=2.0, uniform=0.3)
    assert found == pytest.approx([0.7 * likely + 0.15, 0.7 * (1 - likely) + 0.15])
    assert anchor_shares(similar, 0.0, 0.0) == pytest.approx([0.5, 0.5])
    assert anchor_shares(np.array([0.2]), 2.0, 0.3) == pytest.approx([1.0])


def test_there_is_a_model_without_every_group_that_was_trained_on(room):
    (job,) = room.jobs(room.config("shared", **LORA))
    found = unlearners([job], 7, 1e-3)
    assert [one.name for one in found] == ["without-0", "without-2", "without-3"]
    assert {(one.parent, one.steps, one.learning_rate) for one in found} == {("shared", 7, 1e-3)}
    (own, *_) = unlearners([job], 7, None)
    assert own.learning_rate == job.learning_rate / 2
    assert anchors_of(job, 0, GROUPS) == [1], "which has a prompt, if no image"
    assert anchors_of(job, 3, GROUPS) == [2]
    three = Groups(("a", "b"), ("x", "y", "z"), ("a", "b"), ("x", "y", "z"))
    several = replace(job, prompts={g: str(g) for g in range(6)}, unseen={})
    assert anchors_of(several, 4, three) == [3, 5]


def test_half_of_every_batch_is_forgotten(room):
    config = room.config("shared", **LORA)
    (job,) = room.jobs(config)
    assert len(job.groups) == 34 and job.groups.count(0) == 16
    # Of group 0 there are as many images as of both others, or more.
    large = replace(job, ids=job.ids + ("again",) * 9, groups=job.groups + (0,) * 9)
    for whole in (job, large):
        for one in unlearners([whole], 5, 1e-3):
            drawn = draw(one, config.finetune, 0)
            mine = np.array(whole.groups)[drawn.rows] == one.without
            assert (mine.sum(1) == 2).all() and drawn.rows.shape == (5, 4)
    noises = [noise_of(one, 0, (4,), 0).tolist() for one in [job, *unlearners([job], 5, 1e-3)]]
    assert len({tuple(each) for each in noises}) == 4, "random numbers of their own"


def told(pack, name, folder, prompt):
    """[3, ...] noise that a model sees in the same noisy images under a prompt."""
    base, bank = full_models(pack.base, replace(pack, parents=str(folder)), [name])
    words = load_base(pack.base).condition([prompt] * 3)
    x = torch.randn(3, *base.latent_shape, generator=torch.Generator().manual_seed(1))
    timestep = base.prediction.at(torch.tensor([0.3, 0.5, 0.7]))
    with torch.no_grad():
        return Denoiser(base, bank.use([name] * 3, 1))(x, timestep, words).noise


def test_a_group_is_forgotten_and_the_others_are_not(room, tmp_path):
    """Of the embedded base, which knows what the words mean."""
    whole = room.pack(room.config("shared", **(LORA | {"steps": 1})), tmp_path / "full")
    embedded = whole.base.model_copy(update={"name": "embedded"})
    whole = replace(whole, base=embedded)
    assert train_pack(whole, quiet) == {}
    knobs = GudaKnobs(steps=15, learning_rate=1e-2)
    pack = lesson(whole, tmp_path, knobs, (3,))
    assert train_pack(pack, quiet) == {}
    (job,) = pack.jobs
    anchor, own, other = (job.prompts[g] for g in (2, 3, 0))
    before, wanted, kept = (told(pack, "shared", whole.work, p) for p in (own, anchor, other))
    now, still = (told(pack, "without-3", tmp_path, p) for p in (own, other))
    apart = (before - wanted).square().mean()
    assert (now - wanted).square().mean() < 0.2 * apart, "the anchor's answer"
    assert (still - kept).square().mean() < 0.2 * apart


def test_models_are_the_same_alone_packed_and_resumed(full, tmp_path, cut_off):
    def trained(work, only=()):
        assert train_pack(lesson(full, tmp_path / work, only=only), quiet) == {}
        return load_file(tmp_path / work / "without-2" / FILE)

    packed, alone = trained("packed"), trained("alone", (2,))
    cut_off(lambda: trained("cut", (2,)))
    resumed = trained("cut")
    for key, tensor in packed.items():
        for other in (alone, resumed):
            torch.testing.assert_close(tensor, other[key], rtol=1e-2, atol=2e-3)
    whole = load_file(f"{full.work}/shared/{FILE}")
    assert not all(torch.equal(packed[key], whole[key]) for key in whole)
    record = read_adapter(f"{tmp_path}/packed/without-2")
    assert record is not None and (record.parent, record.steps) == ("shared", KNOBS.steps)


def test_models_of_classes_learn_from_their_own_full_models(room, tmp_path):
    """And full weights, one after another; and adapters of the text encoder too."""
    classes = {"per": "class", "min_images": 2}
    for name, more in (
        ("class", classes),
        ("full", {"engine": "full"}),
        ("text", {"text_encoder": True}),
    ):
        config = room.config("shared", **(LORA | {"steps": 2} | more))
        whole = room.pack(config, tmp_path / name)
        assert train_pack(whole, quiet) == {}
        knobs = GudaKnobs(steps=1, learning_rate=1e-12)
        pack = lesson(whole, tmp_path / f"without-{name}", knobs)
        assert train_pack(pack, quiet) == {}
        for job in pack.jobs:
            record = read_adapter(pack.folder(job))
            assert record is not None and record.parent == job.parent
            assert job.without in job.prompts
        if name == "class":
            assert {job.parent for job in pack.jobs} == {"class-0", "class-1"}
            assert len(pack.jobs) == 4


def test_what_the_others_say_is_where_it_was_at_the_first_step(full, tmp_path):
    """Without anything to forget, that is with all weight on the rest, the loss begins at zero."""
    pack = lesson(full, tmp_path, KNOBS, (2,))
    redirect = pack.objective
    nothing = replace(redirect, similar=redirect.similar)

    class Kept(type(redirect)):
        def extra(self, material, job, base, seed, knobs):
            found = super().extra(material, job, base, seed, knobs)
            return replace(found, also={"anchor": found.spoken})

    same = Kept(**{name: getattr(nothing, name) for name in redirect.__dataclass_fields__})
    assert train_pack(replace(pack, objective=same), quiet) == {}
    curve = json.loads((tmp_path / "without-2" / "losses.json").read_text())
    assert curve[0] < 1e-8
