"""What captions of images speak of: their most frequent words, and the sentences that have them.

After DiffuBias (Ko et al. 2024, arXiv 2411.16079; their code): three captions of each image, of
which those count that have one of the 2 x classes most frequent words; stop words are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

WORD = re.compile(r"[a-z]+")
_SAID = """
a about above after again all also am an and another any are around as at be because been before
behind being below beside between both but by can close could did do does down during each few for
from front further had has have he her here him his how i if image in inside into is it its itself
just like looking me more most my near next no nor not of off on one only onto or other our out
outside over own photo photograph picture same she showing shown so some such than that the their
them then there these they this those three through to too top two under until up very view was we
were what when where which while who why will with you your
"""
STOP_WORDS = frozenset(_SAID.split())
"""English words without content, and those that any caption may begin with."""


def words_of(caption: str) -> list[str]:
    """The words of a caption, lower case and alphabetic, without stop words, each once."""
    found = dict.fromkeys(WORD.findall(caption.lower()))
    return [word for word in found if word not in STOP_WORDS and len(word) > 1]


def top_words(captions: Sequence[str], count: int, leave: Collection[str] = ()) -> tuple[str, ...]:
    """The `count` words that are in most captions, the most frequent first; ties by alphabet.

    `leave`: words that are not counted, such as the labels'.
    """
    spoken = Counter(word for caption in captions for word in words_of(caption))
    ordered = sorted((-n, word) for word, n in spoken.items() if word not in leave)
    return tuple(word for _, word in ordered[:count])


def speaking_of(captions: Sequence[str], words: Collection[str]) -> list[str]:
    """The captions that have one of these words."""
    return [caption for caption in captions if not set(words).isdisjoint(words_of(caption))]


def vocabulary_of(sides: Sequence[Sequence[str]], count: int, labels: Sequence[str]) -> list[str]:
    """The words that an attribute may be called by, of the captions of its sides' images.

    Of each side the `count` most frequent of the captions that its top words leave; labels' own
    words are none, as both sides show them. In the order of the sides, each word once.
    """
    leave = {word for label in labels for word in words_of(label)}
    found: dict[str, None] = {}
    for captions in sides:
        kept = speaking_of(captions, top_words(captions, count))
        found |= dict.fromkeys(top_words(kept, count, leave))
    return list(found)
