"""CoInD: its formula, which prompts are shown and asked, which cells they make up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysynth.adapters.record import read_adapter
from raysynth.finetune.alone import ACROSS, ONE, TWO
from raysynth.finetune.draws import draw
from raysynth.finetune.terms.coind import NAME, gap
from raysynth.finetune.training import train_pack
from raysynth.groups.prompts import alone, spoken
from raysynth.groups.settings import PromptConfig
from tests.finetune.conftest import GROUPS, laid
from tests.finetune.test_terms import CBDM, admitted, quiet, said

ALL = {"per": "all", "batch_size": 8}
KEYS = [f"{NAME}/{key}" for key in (ACROSS, ONE, TWO)]


def test_what_adds_up_has_no_gap_whichever_prompt_is_the_own():
    label, attribute, empty = torch.randn(3, 2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    both = label + attribute - empty
    torch.testing.assert_close(gap(both, empty, label, attribute), torch.zeros(2))
    off = both + torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    for own, across, one, two in (
        (off, empty, label, attribute),
        (label, attribute, off, empty),
        (attribute, label, off, empty),
    ):
        torch.testing.assert_close(gap(own, across, one, two), torch.tensor([0.0, 4.0]))


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_the_gap_of_all_prediction_types_is_one(kind):
    """In the noise's terms, as it is published; and by a known factor in the base's own."""
    dice = torch.Generator().manual_seed(0)
    clean, noise, *guesses = torch.randn(6, 1, 3, 2, 2, generator=dice, dtype=torch.float64)
    each, factor = [], 0.0
    for guess in guesses:
        one, factor = said(kind, clean, noise, guess)
        each.append(one)
    own, across, first, second = guesses
    wanted = ((own + across - first - second) / (2 / 3)).square().mean()
    published = gap(*(one.noise for one in each))
    assert published.item() == pytest.approx(wanted.item(), rel=1e-5)
    ours = gap(*(one.raw for one in each))
    assert ours.item() == pytest.approx(factor * published.item(), rel=1e-5)


def names_of(loop, learner):
    """What each row of a material's texts says."""
    prompts = [text for g in range(GROUPS.count) for text in four(g)]
    known = loop.base.condition(prompts)["states"]
    rows = learner.material.texts["states"]
    found = [[torch.equal(row, one) for one in known].index(True) for row in rows]
    return np.array([prompts[place] for place in found])


def four(group):
    """Both words, none, the label's, the attribute's; as prompts with the token."""
    sides = [alone(PromptConfig(), GROUPS, group, side) for side in ("label", "attribute")]
    return [spoken(PromptConfig(), GROUPS, group), "", *sides]


@pytest.mark.parametrize("cells", ["own", "any"])
def test_every_draw_is_asked_for_the_rest_of_its_cell(room, tmp_path, cells):
    """Group 1 has three images, which are not trained on."""
    term = {"name": "coind", "alone": 0.25, "cells": cells}
    loop = admitted(room, tmp_path, term, ["shared"], **ALL, prompt_dropout=0.2)
    (learner,) = loop.learners
    job, material = learner.job, learner.material
    assert set(job.unseen) == {1}
    draws = draw(job, loop.pack.settings, loop.pack.seed)
    of_image = np.array(job.groups)[draws.rows]
    text = names_of(loop, learner)
    shown = text[material.spoken.numpy()]
    assert ((shown == "") == draws.dropped).all(), "as without the term"
    roles, seen = [], set()
    for place in np.ndindex(shown.shape):
        own = shown[place]
        across, one, two = (text[material.also[key].numpy()[place]] for key in KEYS)
        if own == "":
            assert (across, one, two) == ("", "", "")
            continue
        image = int(of_image[place])
        role = four(image).index(own)
        assert role != 1, "one of its own two words, or both"
        (cell,) = [g for g in range(4) if set(four(g)) == {own, across, one, two}]
        both, empty, label, attribute = four(cell)
        assert {own, across} in ({both, empty}, {label, attribute})
        assert cell == image or (cells == "any" and role != 0)
        roles.append(role)
        seen.add(cell)
    shares = np.bincount(roles, minlength=4) / len(roles)
    assert shares == pytest.approx([0.5, 0, 0.25, 0.25], abs=0.1)
    assert seen == ({0, 1, 2, 3} if cells == "any" else {0, 2, 3})


def test_it_goes_with_another_term_in_either_order(room, tmp_path):
    found = []
    for number, terms in enumerate(([CBDM, "coind"], ["coind", CBDM])):
        work = tmp_path / str(number)
        loop = admitted(room, work, CBDM, ["shared"], **ALL, terms=terms)
        (learner,) = loop.learners
        text, material = names_of(loop, learner), learner.material
        rows = {"": material.spoken, **material.also}
        found.append({key: text[row.numpy()] for key, row in rows.items()})
    one, other = found
    assert one.keys() == other.keys() == {"", "cbdm", *KEYS}
    assert all((one[key] == other[key]).all() for key in one)
    whole = np.isin(one[""], [four(g)[0] for g in range(4)])
    assert (one["cbdm"] == one[""])[~whole].all(), "no group's prompt, so no other group's"
    assert (one["cbdm"] != one[""])[whole].any() and 0.5 < whole.mean() < 0.9


def test_rows_without_a_prompt_have_no_term(room, tmp_path):
    loop = admitted(room, tmp_path, {"name": "coind"}, ["shared"], **ALL, prompt_dropout=0.5)
    phase = laid(loop).phase
    batch = phase.noised(0, 0, loop.denoiser)
    with torch.no_grad():
        found = loop.terms[0](batch)
    (learner,) = loop.learners
    dropped = learner.material.spoken[0] == len(learner.job.prompts)
    assert torch.equal(found > 0, ~dropped) and 0 < dropped.sum() < 8


def test_the_gap_falls_where_it_weighs(room, tmp_path):
    ends = {}
    for weight in (1e-6, 1e4):
        term = {"name": "coind", "weight": weight}
        tuned = {"engine": "full", "per": "all", "steps": 20, "batch_size": 8, "terms": [term]}
        work = tmp_path / str(weight)
        config = room.config("shared", **tuned, learning_rate=3e-3)
        assert train_pack(room.pack(config, work), quiet) == {}
        ends[weight] = read_adapter(str(work / "shared")).terms[NAME] / weight
    assert ends[1e4] < 0.5 * ends[1e-6]
