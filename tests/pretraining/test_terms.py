"""Terms of fine-tuning in the denoiser's loss: what they show images under, and what is refused."""

from __future__ import annotations

import pytest
import torch

from raysynth.errors import ConfigError
from raysynth.finetune.term import terms_of
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.pretraining import denoiser, terms
from raysynth.pretraining.captions import SILENT, of_words
from raysynth.pretraining.material import list_material
from raysynth.pretraining.start import begin
from tests.pretraining.conftest import open_making

GROUPS = Groups(("cog", "washer"), ("cork", "steel"), ("cog", "washer"), ("cork", "steel"))
CAPTIONS = of_words(GROUPS, PromptConfig(), ("{label}, {attribute}",))
LABELS, ATTRIBUTES = torch.tensor([0, 1] * 300), torch.tensor([1, 1, 0, 0] * 150)


def asked(order, term, captions=CAPTIONS):
    """(what a batch is told as, each other text, where it is another), in words."""
    added = terms_of(order(f"pretraining.denoiser.terms=[{term}]").settings.denoiser)
    dice = torch.Generator().manual_seed(0)
    drawn = captions.draw(LABELS, ATTRIBUTES, dice, terms.alone_of(added))
    also, differs = terms.ask(added, captions, GROUPS, drawn, dice)
    words = {name: [captions.texts[n] for n in each.tolist()] for name, each in also.items()}
    return drawn, words, {name: each.tolist() for name, each in differs.items()}


@pytest.mark.parametrize(("partners", "kept"), [("any", None), ("same_label", 0)])
def test_cbdm_shows_another_group_in_the_same_template(order, partners, kept):
    drawn, words, differs = asked(order, f"{{name: cbdm, partners: {partners}}}")
    seen = set()
    for meaning, place, other, acts in zip(
        drawn.meanings, drawn.places.tolist(), words["cbdm"], differs["cbdm"], strict=True
    ):
        if min(meaning) < 0:
            assert not acts, "one word alone, or none, has nobody to be compared with"
            continue
        fitting = [
            each
            for each, texts in CAPTIONS.said.items()
            if CAPTIONS.texts[texts[int(place * len(texts))]] == other
        ]
        assert len(fitting) == 1 and acts == (fitting[0] != meaning)
        if kept is not None:
            assert fitting[0][kept] == meaning[kept] and fitting[0] != meaning
        seen.add((meaning, fitting[0]))
    assert len(seen) == (16 if partners == "any" else 4), "every partner is drawn"


@pytest.mark.parametrize("cells", ["own", "any"])
def test_coind_shows_the_other_three_of_a_cell(order, cells):
    drawn, words, differs = asked(order, f"{{name: coind, alone: 0.3, cells: {cells}}}")
    kinds = [sum(side >= 0 for side in meaning) for meaning in drawn.meanings]
    assert 0.5 < kinds.count(1) / len(kinds) < 0.7, "as many say one word alone as the term asks"
    across, one, two = (words[f"coind/{key}"] for key in ("across", "one", "two"))
    foreign = 0
    for number, (label, attribute) in enumerate(drawn.meanings):
        three = (across[number], one[number], two[number])
        assert differs["coind/across"][number] == ((label, attribute) != (-1, -1))
        if label >= 0 and attribute >= 0:
            assert three[0] == CAPTIONS.texts[SILENT]
            assert GROUPS.label_words[label] in three[1]
            assert GROUPS.attribute_words[attribute] in three[2]
        elif label >= 0:
            assert GROUPS.label_words[label] in three[1] and three[2] == ""
            foreign += GROUPS.attribute_words[ATTRIBUTES[number]] not in three[1]
        elif attribute >= 0:
            assert GROUPS.attribute_words[attribute] in three[1] and three[2] == ""
            foreign += GROUPS.label_words[LABELS[number]] not in three[1]
    assert (foreign > 0) == (cells == "any")


def test_a_term_is_added_and_pulls_predictions_of_two_groups_together(order):
    making = open_making(order("pretraining.denoiser.terms=[{name: cbdm, tau: 3.0}]"))
    parts = begin(making.settings, making.tokenizer, 0, on_cpu=True)
    given = (denoiser.cache_latents(making, parts.vae.eval()), denoiser.States(making, parts.clip))
    says = denoiser.denoiser_of(making, parts.unet)

    def loss(added):
        return denoiser.batch_loss(
            making, says, added, *given, torch.Generator().manual_seed(2)
        ).item()

    assert loss(terms_of(making.settings.denoiser)) > loss(())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("terms=[overlap]",), "needs what a base says before its first step"),
        (("terms=[cbdm, cbdm]",), "cbdm more than once"),
        (("terms=[cbdm, overlap]",), "cbdm and overlap pull the same predictions"),
    ],
)
def test_terms_that_do_not_fit_are_refused(order, settings, said):
    with pytest.raises(ConfigError, match=said):
        order(*(f"pretraining.denoiser.{each}" for each in settings))


def test_terms_of_images_without_words_are_refused(order):
    with pytest.raises(ConfigError, match="captions=none"):
        order("pretraining.denoiser.terms=[cbdm]", "pretraining.captions=none")
    given = order(
        "pretraining.denoiser.terms=[coind]",
        "prompts.template='a {token} {label}'",
        "pretraining.templates=['a {label}']",
    )
    with pytest.raises(ConfigError, match="no text says an attribute"):
        list_material(given.dataset, given.prompts, given.settings, given.seed)
