"""What images are told as: texts by what they say, drawn at random; and what they are held against.

An image has a label and an attribute; -1: not known. Own captions, of a column, are labels without
an attribute, each its own text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from raysynth.groups.groups import Groups
from raysynth.groups.prompts import both_alone, spoken
from raysynth.groups.settings import PromptConfig

NOTHING, ALONE = 0.10, 0.08
"""How often a caption says nothing, the label alone, and as often the attribute alone."""
SILENT = 0
"""Number of the empty text."""
MOST_CONCEPTS = 256
"""Up to here images are held against all there are; beyond, against those of their batch."""
WEIGHTS = {"both": 1.0, "label": 1.0, "attribute": 0.3}
"""Of the contrastive losses, by what the texts say."""
Meaning = tuple[int, int]
"""Label and attribute; -1: the text does not say."""
NONE_SAID: Meaning = (-1, -1)
KINDS = tuple(WEIGHTS)


@dataclass(frozen=True)
class Drawn:
    """What a batch of images is told as."""

    texts: Tensor
    """[B] numbers."""
    meanings: list[Meaning]
    images: list[Meaning]
    """What the images show, said or not."""
    places: Tensor
    """[B] in 0..1, which of the texts of one meaning was taken."""


@dataclass(frozen=True)
class Captions:
    """Texts, the empty one first, and which of them have which meaning."""

    texts: tuple[str, ...]
    said: dict[Meaning, tuple[int, ...]]
    """Meaning -> numbers of the texts with it."""

    def draw(
        self, labels: Tensor, attributes: Tensor, dice: torch.Generator, alone: float = ALONE
    ) -> Drawn:
        """What images [B] are told as; some texts say only one thing, some nothing.

        `alone`: how often the label alone is said, and as often the attribute alone.
        """
        saying = torch.tensor([1 - NOTHING - 2 * alone, alone, alone, NOTHING])
        kinds = torch.multinomial(saying, len(labels), replacement=True, generator=dice)
        places = torch.rand(len(labels), generator=dice)
        images = list(zip(labels.tolist(), attributes.tolist(), strict=True))
        each = zip(images, kinds.tolist(), strict=True)
        meanings = [self._meaning(*image, kind) for image, kind in each]
        return Drawn(self.texts_of(meanings, places), meanings, images, places)

    def texts_of(self, meanings: Sequence[Meaning], places: Tensor) -> Tensor:
        """[B] numbers of the texts with such meanings, at places [B] in 0..1 among them."""
        found = [self.said.get(each, (SILENT,)) for each in meanings]
        each = zip(found, places.tolist(), strict=True)
        return torch.tensor([texts[int(place * len(texts))] for texts, place in each])

    def _meaning(self, label: int, attribute: int, kind: int) -> Meaning:
        if kind == len(KINDS):
            return NONE_SAID
        asked = ((label, attribute), (label, -1), (-1, attribute))[kind]
        return next((each for each in (asked, (label, -1)) if each in self.said), NONE_SAID)

    @cached_property
    def concepts(self) -> list[Meaning]:
        """All meanings but silence: those of both, of labels, of attributes."""
        return sorted((each for each in self.said if each != NONE_SAID), key=_kind_of)

    def contrasts(self, labels: Tensor, attributes: Tensor, dice: torch.Generator) -> Contrasts:
        """A random text of each meaning, and which images [B] it fits."""
        meanings = self.concepts
        if len(meanings) > MOST_CONCEPTS:
            there = set(labels.tolist())
            meanings = [each for each in meanings if each[0] in there]
        places = torch.rand(len(meanings), generator=dice).tolist()
        texts = [
            self.said[each][int(place * len(self.said[each]))]
            for each, place in zip(meanings, places, strict=True)
        ]
        of_label, of_attribute = (torch.tensor(each) for each in zip(*meanings, strict=True))
        fits = (of_label == -1) | (of_label == labels[:, None])
        fits &= (of_attribute == -1) | (of_attribute == attributes[:, None])
        kinds = [_kind_of(each) for each in meanings]
        return Contrasts(torch.tensor(texts), fits, [kinds.count(kind) for kind in range(3)])

    def first(self, meaning: Meaning) -> str:
        """The text that says a meaning most plainly."""
        return self.texts[self.said[meaning][0]]


@dataclass(frozen=True)
class Contrasts:
    """What a batch of images is held against."""

    texts: Tensor
    """[T] numbers, in blocks: both, label, attribute."""
    fits: Tensor
    """[B, T] bool."""
    blocks: list[int]
    """Texts of each block."""


def _kind_of(meaning: Meaning) -> int:
    label, attribute = meaning
    return 2 if label == -1 else 1 if attribute == -1 else 0


def of_words(
    groups: Groups, prompts: PromptConfig, templates: Sequence[str], *, attributes: bool = True
) -> Captions:
    """Captions of the groups' words in templates, with and without the rare token.

    A meaning's first text is that of `prompts.template`, without the token. `attributes`: whether
    any is known.
    """
    texts: dict[str, int] = {"": SILENT}
    said: dict[Meaning, dict[int, None]] = {}

    def add(meaning: Meaning, text: str) -> None:
        said.setdefault(meaning, {})[texts.setdefault(text, len(texts))] = None

    for template in (prompts.template, *templates):
        told = PromptConfig(template=template, token=prompts.token)
        for token in ("", None):
            for g in range(groups.count):
                label, attribute = both_alone(told, groups, g, token=token)
                add((groups.label(g), -1), label)
                if attributes and "attribute" in told.fields:
                    add(
                        (groups.label(g), groups.attribute(g)), spoken(told, groups, g, token=token)
                    )
                    add((-1, groups.attribute(g)), attribute)
    return Captions(tuple(texts), {meaning: tuple(found) for meaning, found in said.items()})


def of_column(column: Sequence[str]) -> tuple[Captions, list[int]]:
    """Captions of the data set's own; and the label, its number, of each image."""
    kept = list(dict.fromkeys(" ".join(text.split()) for text in column))
    number = {text: place for place, text in enumerate(kept)}
    said: dict[Meaning, tuple[int, ...]] = {(n, -1): (n + 1,) for n in range(len(kept))}
    labels = [number[" ".join(text.split())] for text in column]
    return Captions(("", *kept), said), labels


def of_nothing() -> Captions:
    """The empty text alone."""
    return Captions(("",), {})
