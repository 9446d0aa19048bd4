"""Terms of the loss: their formulas, what switches them off, whom they compare, what they cost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysynth.adapters.record import read_adapter
from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.finetune import training
from raysynth.finetune.checks import check_finetune, check_jobs
from raysynth.finetune.memory import rows_of
from raysynth.finetune.settings import TERMS
from raysynth.finetune.terms.cbdm import regulariser
from raysynth.finetune.terms.overlap import BINS, IMAGES, hinge
from raysynth.finetune.training import train_pack
from raysynth.generators.inputs import training_inputs
from raysynth.generators.recipe import recipe_of
from raysynth.models.prediction import Predicted, Prediction
from raysynth.planning.costs import forwards, rows_per_image
from tests.finetune.conftest import GROUPS, laid

FILE = "pytorch_lora_weights.safetensors"
CBDM = {"name": "cbdm", "tau": 2.0}
OVERLAP = {"name": "overlap", "margin": 50.0}
COIND = {"name": "coind", "weight": 2.0}
SHARED = {"engine": "lora", "per": "class", "learning_rate": 1e-2}
"""A LoRA for each class: two adapters of several groups in one pack."""


def quiet(done, failed, fit="", **more):
    pass


def trained(room, work, names=None, **finetune):
    """Weights by adapter of a pack of shared adapters."""
    pack = room.pack(room.config("shared", **{**SHARED, **finetune}), work, names)
    assert train_pack(pack, quiet) == {}
    return {job.name: load_file(work / job.name / FILE) for job in pack.jobs}


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


# The formulas ---------------------------------------------------------------------------------


def said(kind, clean, noise, guess):
    """What a base of a kind says of a noisy image where it takes the clean one for `guess`.

    At equal noise per signal: 2 / 3.
    """
    flow = kind == "flow_prediction"
    known = Prediction(kind, 1000, None if flow else torch.tensor([1 / (1 + (2 / 3) ** 2)]))
    t = torch.tensor([400.0 if flow else 0.0])
    signal, spread = known.levels(t)
    x, _ = known.noised(clean, noise, t)
    error = (x - signal * guess) / spread
    raw = {
        "epsilon": error,
        "sample": guess,
        "v_prediction": signal * error - spread * guess,
        "flow_prediction": error - guess,
    }[kind]
    return Predicted(known, x, t, raw), {
        "epsilon": torch.tensor(1.0),
        "sample": spread / signal,
        "v_prediction": 1 / signal,
        "flow_prediction": 1 / signal,
    }[kind].square().item()


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_the_terms_of_all_prediction_types_are_one(kind):
    """In the noise's terms, as they are published; and by a known factor in the base's own."""
    dice = torch.Generator().manual_seed(0)
    clean, noise, one, two = torch.randn(4, 1, 3, 2, 2, generator=dice, dtype=torch.float64)
    shift = -(one - two) / (2 / 3)
    wanted = shift.square().mean()
    own, factor = said(kind, clean, noise, one)
    other, _ = said(kind, clean, noise, two)
    assert own.prediction.noise_to_signal(own.timestep).item() == pytest.approx(2 / 3)
    assert own.prediction.snr_db(own.timestep).item() == pytest.approx(3.5218, abs=1e-4)
    level = torch.tensor([0.5])
    published = regulariser(own.noise, other.noise, level, 1.0, 0.25)
    assert published.item() == pytest.approx(0.5 * 1.25 * wanted.item(), rel=1e-5)
    ours = regulariser(own.raw, other.raw, level, 1.0, 0.25)
    assert ours.item() == pytest.approx(factor * published.item(), rel=1e-5)
    apart = hinge(own.raw, other.raw, torch.tensor([1e3]), 1.0)
    assert apart.item() == pytest.approx(1e3 - factor * wanted.item(), rel=1e-5)


def test_cbdm_pulls_each_prediction_towards_the_other_held_still():
    own, other = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    own, other = own.clone().requires_grad_(), other.clone().requires_grad_()
    level = torch.tensor([0.0, 0.5, 1.0])
    to_own, to_other = torch.autograd.grad(
        regulariser(own, other, level, 2.0, 0.0).sum(), (own, other), allow_unused=True
    )
    assert not to_other.any(), "the first part holds the other one still"
    expected = 2 * 2 * level.view(3, 1, 1, 1) * (own - other).detach() / 16
    torch.testing.assert_close(to_own, expected)
    assert not to_own[0].any(), "no weight at level 0"
    whole = torch.autograd.grad(regulariser(own, other, level, 2.0, 0.25).sum(), (own, other))
    torch.testing.assert_close(whole[0], to_own)
    torch.testing.assert_close(whole[1], -0.25 * to_own)


def test_overlap_stops_where_predictions_are_far_enough_apart():
    own = torch.zeros(2, 1, 2, 2, requires_grad=True)
    other = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2).clone().requires_grad_()
    found = hinge(own, other, torch.tensor([1.0, 4.0]), 3.0)
    assert found.tolist() == [3 * (1 - 0.25), 0.0]
    grown, still = torch.autograd.grad(found.sum(), (own, other), allow_unused=True)
    assert still is None and not grown[1].any()
    torch.testing.assert_close(grown[0], torch.full((1, 2, 2), 3 * 2 * 0.5 / 4))


# Off is what it was ---------------------------------------------------------------------------


def frozen_losses(loop, phase, micro):
    """`training.losses` before there were terms."""
    noise = phase.noise(micro, loop.pack.seed)
    mean, spread = phase.moments[phase.entries[micro]].float().unbind(1)
    prediction = loop.base.prediction
    timestep = prediction.draw(phase.uniform[micro])
    clean = mean + spread * noise[0]
    noisy, target = prediction.noised(clean, noise[1], timestep)
    predicted = loop.denoiser(noisy, timestep, phase.texts.take(phase.spoken[micro]))
    error = (predicted.raw - target).square().flatten(1).mean(1)
    return torch.where(phase.weights > 0, phase.weights * error, 0.0).sum(1)


def test_without_terms_losses_and_gradients_are_bit_for_bit_what_they_were(room, tmp_path):
    pack = room.pack(room.config("shared", **SHARED), tmp_path)
    loop = training.start(pack, pack.jobs)
    assert training._admit(loop, list(pack.jobs)) == {}
    phase = laid(loop).phase
    found = []
    for losses in (training.losses, frozen_losses):
        loop.trainee.rows.gradients.zero_()
        loss = losses(loop, phase, 0)
        loss.sum().backward()
        found.append((loss.detach(), loop.trainee.rows.gradients.clone()))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert found[0][1].any()


@pytest.mark.parametrize(
    "term",
    [
        {"name": "cbdm", "tau": 0},
        {"name": "overlap", "weight": 0},
        {"name": "coind", "weight": 0, "alone": 0},
    ],
)
def test_a_term_without_weight_trains_the_same_bits(room, tmp_path, term):
    plain = trained(room, tmp_path / "plain")
    weightless = trained(room, tmp_path / "weightless", terms=[term])
    assert all(equal(plain[name], weightless[name]) for name in plain)


def test_terms_decide_what_is_made_and_none_do_not():
    def inputs(*overrides):
        return training_inputs(load_config(None, ["generator=shared", *overrides]))

    assert inputs() == inputs("finetune.terms=[]"), "what earlier versions did"
    assert inputs("finetune.terms=[cbdm]") != inputs("finetune.terms=[{name: cbdm, tau: 0.5}]")


# On is exact ----------------------------------------------------------------------------------


@pytest.mark.parametrize("term", [CBDM, OVERLAP, COIND], ids=["cbdm", "overlap", "coind"])
def test_an_adapter_is_the_same_alone_packed_and_resumed(
    room, tmp_path, monkeypatch, cut_off, term
):
    monkeypatch.setattr("raysynth.finetune.terms.overlap.IMAGES", 4)
    more = {"terms": [term], "steps": 4, "prompt_dropout": 0.3}
    more |= {"prior_weight": 1.0, "prior_images": 2, "patience": 9, "evaluate_steps": 2}
    packed = trained(room, tmp_path / "packed", **more)["class-1"]
    alone = trained(room, tmp_path / "alone", ["class-1"], **more)["class-1"]
    cut_off(lambda: trained(room, tmp_path / "cut", ["class-1"], **more))
    resumed = trained(room, tmp_path / "cut", **more)["class-1"]
    plain = trained(room, tmp_path / "plain", ["class-1"], **(more | {"terms": []}))["class-1"]
    for key, tensor in packed.items():
        for other in (alone, resumed):
            torch.testing.assert_close(tensor, other[key], rtol=1e-2, atol=2e-3)
    assert any((packed[key] - plain[key]).abs().max() > 1e-3 for key in packed)
    for work in ("packed", "cut"):
        told = json.loads((tmp_path / work / "class-1" / "terms.json").read_text())[term["name"]]
        assert len(told["curve"]) == 4 and sum(told["curve"]) > 0
        record = read_adapter(str(tmp_path / work / "class-1"))
        assert record.terms[term["name"]] == pytest.approx(told["curve"][-1], abs=1e-5)
    if term is OVERLAP:
        assert len(told["distance_of_base"]) == BINS and min(told["distance_of_base"]) > 0


def test_full_weights_train_with_terms(room, tmp_path):
    config = room.config("shared", per="all", learning_rate=1e-3, terms=[CBDM])
    assert train_pack(room.pack(config, tmp_path), quiet) == {}
    assert read_adapter(str(tmp_path / "shared")).terms["cbdm"] > 0


def test_records_without_terms_are_what_they_were(room, tmp_path):
    trained(room, tmp_path, ["class-1"])
    record = json.loads((tmp_path / "class-1" / "adapter.json").read_text())
    assert "terms" not in record and not (tmp_path / "class-1" / "terms.json").exists()
    assert read_adapter(str(tmp_path / "class-1")).terms == {}
    broken = record | {"terms": {"cbdm": "much"}}
    (tmp_path / "class-1" / "adapter.json").write_text(json.dumps(broken))
    assert read_adapter(str(tmp_path / "class-1")) is None


def admitted(room, tmp_path, term, names=("class-0", "class-1"), **finetune):
    settings = {**SHARED, "steps": 40, "terms": [term], **finetune}
    pack = room.pack(room.config("shared", **settings), tmp_path, list(names))
    loop = training.start(pack, pack.jobs)
    assert training._admit(loop, list(pack.jobs)) == {}
    return loop


@pytest.mark.parametrize(
    ("partners", "share"), [("any", {0: 0.5, 1: 0.5}), ("same_label", {0: 0.0, 1: 1.0})]
)
def test_the_other_group_is_drawn_evenly_and_may_have_no_image(room, tmp_path, partners, share):
    """Of class 0 only group 0 is trained on; group 1 has three images."""
    term = {"name": "cbdm", "partners": partners}
    loop = admitted(room, tmp_path, term, ["class-0"], prompt_dropout=0.25)
    (learner,) = loop.learners
    material = learner.material
    dropped = material.spoken == 1
    assert 0 < dropped.float().mean() < 0.5 and len(material.texts) == 3
    other = material.also["cbdm"]
    assert torch.equal(other[dropped], material.spoken[dropped]), "nothing is asked of them"
    found = {g: (other[~dropped] == row).float().mean() for g, row in ((0, 0), (1, 2))}
    assert found == pytest.approx(share, abs=0.2)
    expected = loop.base.condition([learner.job.unseen[1]])["states"][0]
    assert torch.equal(material.texts["states"][2], expected)


def test_rows_without_a_prompt_have_no_term_and_others_their_own(room, tmp_path):
    loop = admitted(room, tmp_path, OVERLAP, ["class-1"], prompt_dropout=0.5, batch_size=8)
    phase = laid(loop).phase
    batch = phase.noised(0, 0, loop.denoiser)
    with torch.no_grad():
        found = loop.terms[0](batch)
    assert torch.equal(found > 0, batch.differs["overlap"]) and 0 < (found > 0).sum() < 8
    within = loop.terms[0].knobs.model_copy(update={"levels": (0.0, 0.5)})
    some = loop.terms[0].term(batch, within) > 0
    assert torch.equal(some, (found > 0) & (batch.level <= 0.5)) and 0 < some.sum() < 8


def test_a_training_without_any_prompt_has_nobody_to_compare(room, tmp_path):
    loop = admitted(room, tmp_path, OVERLAP, ["class-1"], prompt_dropout=1.0)
    (learner,) = loop.learners
    assert not any(learner.material.noted["overlap"]["distance_of_base"])
    assert torch.equal(learner.material.also["overlap"], learner.material.spoken)


def test_early_stopping_measures_the_plain_loss(room, tmp_path):
    more = {"patience": 3, "holdout": 0.3, "evaluate_steps": 1}
    best = {}
    for name, term in (("on", [{**CBDM, "tau": 1e6}]), ("off", [])):
        loop = admitted(room, tmp_path, CBDM, **more)
        loop.terms = loop.terms if term else ()
        training._evaluate(loop, loop.learners)
        best[name] = [learner.best_loss for learner in loop.learners]
    assert best["on"] == best["off"] and np.isfinite(best["on"]).all()


# What it costs, what is refused ---------------------------------------------------------------


def test_passes_are_counted_where_memory_and_costs_are(room, tmp_path):
    found = {}
    for name in ("", "cbdm", "overlap", "coind"):
        terms = [name] if name else []
        config = room.config("shared", **SHARED, terms=terms, prior_weight=1.0, accumulation=2)
        pack, own = room.pack(config, tmp_path), recipe_of(config).training
        rows = rows_of(pack.jobs[0], pack) // pack.jobs[0].batch
        assert rows_per_image(own, config.finetune) == 2 * rows
        found[name] = (rows, forwards(own, config.finetune, [10, 20]))
    first = 2 * 2 * BINS * IMAGES
    some = {"": (2, 0), "cbdm": (4, 0), "overlap": (2, 30 * 2 * 2 + first), "coind": (8, 0)}
    assert found == some


@pytest.mark.parametrize("generator", ["vanilla", "lora", "dreambooth", "clustered_dreambooth"])
def test_models_of_one_group_are_refused(generator):
    config = load_config(None, [f"generator={generator}", "finetune.terms=[cbdm]"])
    with pytest.raises(ConfigError, match=rf"got generator={generator}, .* Fix: generator=shared"):
        check_finetune(config)


def test_terms_that_pull_against_each_other_are_refused():
    for terms, message in (("[cbdm, overlap]", "apart and together"), ("[cbdm, cbdm]", "once")):
        config = load_config(None, ["generator=shared", f"finetune.terms={terms}"])
        with pytest.raises(ConfigError, match=message):
            check_finetune(config)
    check_finetune(load_config(None, ["generator=edit", "finetune.terms=[overlap]"]))


@pytest.mark.parametrize(
    ("per", "term"),
    [
        ("attribute", "overlap"),
        ("attribute", "{name: cbdm, partners: same_label}"),
        ("class", "{name: cbdm, partners: same_attribute}"),
        ("class", "{name: overlap, negatives: label}"),
        ("class", "coind"),
        ("attribute", "coind"),
    ],
)
def test_a_model_that_knows_nobody_to_compare_with_is_refused(per, term):
    counts = np.array([90, 10, 10, 90])
    given = ["generator=shared", f"finetune.terms=[{term}]"]
    check_jobs(load_config(None, [*given, "finetune.per=all"]), GROUPS, counts)
    with pytest.raises(ConfigError, match=rf"the model '{per}-0' does not speak for.*per=all"):
        check_jobs(load_config(None, [*given, f"finetune.per={per}"]), GROUPS, counts)


def test_values_out_of_bounds_are_refused():
    for term in ("{name: cbdm, tau: -1}", "{name: overlap, margin: 0}", "{name: cbdm, w: 1}"):
        with pytest.raises(ConfigError):
            load_config(None, ["generator=shared", f"finetune.terms=[{term}]"])
    with pytest.raises(ConfigError, match=r"Did you mean 'cbdm'\?"):
        load_config(None, ["finetune.terms=[cbmd]"])


def test_every_part_says_what_it_is():
    for name in TERMS:
        part = TERMS[name]
        assert part.title and part.source and name not in part.against
        assert all(name in TERMS[other].against for other in part.against)
        assert replace(part.passes(part.Knobs()), first=0).trained >= 0
