"""What the tiny base can be told: garments, grounds, caption templates, and its tokenizer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from itertools import pairwise

from transformers import CLIPTokenizer

from raysynth.datasets.garments import CLASSES, PHOTOGRAPHS

COLOURS = {
    "white": (0.93, 0.93, 0.93),
    "gray": (0.52, 0.52, 0.52),
    "black": (0.08, 0.08, 0.08),
    "red": (0.75, 0.18, 0.16),
    "green": (0.20, 0.58, 0.25),
    "blue": (0.20, 0.32, 0.72),
    "yellow": (0.88, 0.78, 0.22),
    "brown": (0.46, 0.30, 0.17),
}
"""Plain backgrounds: name and mean colour (red, green, blue in 0..1)."""

GROUNDS = (*PHOTOGRAPHS, *COLOURS)
"""Every ground the base knows; an index into it is a ground's number."""

RARE_TOKEN = "sks"
MAX_LENGTH = 24
"""Tokens per prompt, start and end included."""

_START, _END = "<|startoftext|>", "<|endoftext|>"

_BOTH = (
    "a photo of a {garment} on {ground}",
    "a photo of a {garment} on {ground}",
    "a photo of a {rare} {garment} on {ground}",
    "a photo of a {rare} {garment} on {ground}",
    "a {rare} {garment} on {ground}",
    "a photo of the {garment} on {ground}",
    "a picture of a {garment} on {ground}",
    "an image of a {garment} on {ground}",
    "a photo of {ground} with a {garment}",
    "a {garment} on {ground}",
    "a {garment} in front of {ground}",
    "{garment} on {ground}",
    "{garment}, {ground}",
)
_GARMENT = (
    "a photo of a {garment}",
    "a photo of a {garment}",
    "a photo of a {rare} {garment}",
    "a {rare} {garment}",
    "a photo of the {garment}",
    "a picture of a {garment}",
    "an image of a {garment}",
    "a {garment}",
    "{garment}",
)
_GROUND = (
    "a photo of {ground}",
    "a picture of {ground}",
    "an image of {ground}",
    "a photo of clothes on {ground}",
    "clothes on {ground}",
    "on {ground}",
    "{ground}",
)
_PLAIN = ("a plain {colour} background", "a {colour} background", "{colour}", "plain {colour}")

Meaning = tuple[int | None, int | None]
"""Garment class and ground of a caption; None where the caption does not say."""


def all_meanings() -> list[Meaning]:
    """Every meaning a caption can have: 10 x 11 pairs, 10 garments alone, 11 grounds alone."""
    garments, grounds = range(len(CLASSES)), range(len(GROUNDS))
    pairs: list[Meaning] = [(garment, ground) for garment in garments for ground in grounds]
    return [*pairs, *((garment, None) for garment in garments), *((None, g) for g in grounds)]


def captions(meaning: Meaning) -> list[str]:
    """Every caption with this meaning."""
    garment, ground = meaning
    templates = _GROUND if garment is None else _GARMENT if ground is None else _BOTH
    name = "" if garment is None else CLASSES[garment]
    return [
        template.format(garment=name, ground=words, rare=RARE_TOKEN)
        for template in templates
        for words in ([""] if ground is None else ground_words(ground))
    ]


def ground_words(ground: int) -> list[str]:
    """How captions speak of a ground: its name, or a colour in several forms."""
    name = GROUNDS[ground]
    return [name] if name in PHOTOGRAPHS else [form.format(colour=name) for form in _PLAIN]


def random_caption(meaning: Meaning, dice: random.Random) -> str:
    """One of the captions with this meaning."""
    return dice.choice(captions(meaning))


def build_tokenizer() -> CLIPTokenizer:
    """A byte-level CLIP tokenizer in which every caption word is one token.

    Any other text falls back to its bytes, as in CLIP's own vocabulary (Radford et al. 2021).
    """
    texts = (caption for meaning in all_meanings() for caption in captions(meaning))
    merges = _merges(sorted({word for text in texts for word in re.findall("[a-z]+", text)}))
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += [_START, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in order, that build each word from left to right."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = next((p for p in merges if p in pairwise(parts)), None)
            if pair is None:
                pair = (parts[0], parts[1])
                merges[pair] = None
            at = next(i for i in range(len(parts) - 1) if (parts[i], parts[i + 1]) == pair)
            parts[at : at + 2] = ["".join(pair)]
    return list(merges)


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in CLIP's byte-level BPE (after GPT-2)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letter = {byte: chr(byte) for byte in shown}
    letter |= {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return [letter[byte] for byte in range(256)]
