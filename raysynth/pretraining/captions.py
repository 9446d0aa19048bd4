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

SAYING = torch.tensor([0.74, 0.08, 0.08, 0.10])
"""How often a caption says label and attribute, the label, the attribute, nothing."""
SILENT = 0
"""Number of the empty text."""
MOST_CONCEPTS = 256
"""Up to here images are held against all there are; beyond, against those of their batch."""
WEIGHTS = {"both": 1.0, "label": 1.0, "attribute": 0.3}
"""Of the contrastive losses, by what the texts say."""
Meaning = tuple[int, int]
"""Label and attribute; -1: the text does not say."""


@dataclass(frozen=True)
class Captions:
    """Texts, the empty one first, and which of them have which meaning."""

    texts: tuple[str, ...]
    said: dict[Meaning, tuple[int, ...]]
    """Meaning -> numbers of the texts with it."""

    def draw(self, labels: Tensor, attributes: Tensor, dice: torch.Generator) -> Tensor:
        """[B] numbers of texts for images [B]; some say only one thing, some nothing."""
        kinds = torch.multinomial(SAYING, len(labels), replacement=True, generator=dice)
        places = torch.rand(len(labels), generator=dice)
        return torch.tensor(
            [
                self._one(*given)
                for given in zip(
                    labels.tolist(),
                    attributes.tolist(),
                    kinds.tolist(),
                    places.tolist(),
                    strict=True,
                )
            ]
        )

    def _one(self, label: int, attribute: int, kind: int, place: float) -> int:
        if kind == len(SAYING) - 1:
            return SILENT
        asked = ((label, attribute), (label, -1), (-1, attribute))[kind]
        found = self.said.get(asked) or self.said.get((label, -1)) or (SILENT,)
        return found[int(place * len(found))]

    @cached_property
    def concepts(self) -> list[Meaning]:
        """All meanings but silence: those of both, of labels, of attributes."""
        return sorted((each for each in self.said if each != (-1, -1)), key=_kind_of)

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
