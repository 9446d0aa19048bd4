"""What images are told as, and what they are held against."""

from __future__ import annotations

import torch

from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.pretraining.captions import MOST_CONCEPTS, SILENT, of_column, of_nothing, of_words

GROUPS = Groups(("cog", "washer"), ("cork", "steel"), ("cog", "washer"), ("cork", "steel"))


def words(**given):
    return of_words(GROUPS, PromptConfig(), ("{label}, {attribute}",), **given)


def test_texts_say_both_the_label_the_attribute_or_nothing():
    captions = words()
    assert captions.texts[SILENT] == ""
    assert captions.first((1, 0)) == "a photo of a washer on cork"
    told = {captions.texts[n] for n in captions.said[1, 0]}
    assert told == {
        "a photo of a washer on cork",
        "a photo of a sks washer on cork",
        "washer, cork",
    }
    assert {captions.texts[n] for n in captions.said[0, -1]} >= {"a photo of a cog", "cog"}


def test_no_caption_contradicts_its_image():
    captions = words()
    labels, attributes = torch.tensor([0, 1] * 200), torch.tensor([1, 1, 0, 0] * 100)
    drawn = captions.draw(labels, attributes, torch.Generator().manual_seed(0))
    texts = [captions.texts[n] for n in drawn.texts.tolist()]
    for text, label, attribute in zip(texts, labels.tolist(), attributes.tolist(), strict=True):
        assert GROUPS.label_words[1 - label] not in text
        assert GROUPS.attribute_words[1 - attribute] not in text
    assert 0.05 < texts.count("") / len(texts) < 0.16


def test_an_image_fits_the_texts_of_its_label_and_attribute_alone():
    captions = words()
    drawn = captions.contrasts(
        torch.tensor([0, 1]), torch.tensor([1, -1]), torch.Generator().manual_seed(0)
    )
    assert drawn.blocks == [4, 2, 2]
    fitting = [[captions.concepts[n] for n in row.nonzero()[:, 0]] for row in drawn.fits]
    assert fitting == [[(0, 1), (0, -1), (-1, 1)], [(1, -1)]]


def test_without_known_attributes_texts_say_the_label():
    captions = words(attributes=False)
    assert set(captions.said) == {(0, -1), (1, -1)}
    drawn = captions.draw(
        torch.zeros(50, dtype=torch.int64), torch.full((50,), -1), torch.Generator()
    )
    assert set(drawn.texts.tolist()) - {SILENT} <= set(captions.said[0, -1])


def test_own_captions_are_labels_and_many_are_held_against_those_of_a_batch():
    captions, labels = of_column(["a  cog", "a washer", "a cog"])
    assert labels == [0, 1, 0] and captions.texts == ("", "a cog", "a washer")
    many, _ = of_column([f"part {n}" for n in range(MOST_CONCEPTS + 1)])
    drawn = many.contrasts(torch.tensor([5, 7, 5]), torch.full((3,), -1), torch.Generator())
    assert drawn.texts.tolist() == [6, 8]
    assert drawn.fits.tolist() == [[True, False], [False, True], [True, False]]
    silent = of_nothing().draw(torch.tensor([0]), torch.tensor([-1]), torch.Generator())
    assert silent.texts.tolist() == [SILENT]
