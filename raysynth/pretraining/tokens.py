"""A CLIP tokenizer whose words are those of the captions; other text falls back to its bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

WORD_END = "</w>"
LAST = 0xE000
"""First of the characters, of private use, that stand for a word's last letter."""
START, END = "<|startoftext|>", "<|endoftext|>"
SHORTEST, LONGEST = 24, 77
"""Tokens per prompt, start and end included: at least, and at most (CLIP's own)."""
MOST_TOKENS = 8192
"""Vocabulary; captions of more words share pieces of words."""


def build_tokenizer(texts: Sequence[str]) -> CLIPTokenizer:
    """Byte pairs learned from the captions (Radford et al. 2021, at the captions' size).

    Where few words occur each is one token. As long as the longest caption, at least `SHORTEST`.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}{WORD_END}" for letter in letters), START, END]
    plain = CLIPTokenizer(vocab={token: n for n, token in enumerate(tokens)}, merges=[])
    words = sorted({word for text in texts for word in _words(plain, text)})
    merges = _merges(words)
    known = [*tokens[:-2], *dict.fromkeys(left + right for left, right in merges), START, END]
    found = CLIPTokenizer(vocab={token: n for n, token in enumerate(known)}, merges=merges)
    longest = max((len(ids) for ids in found(list(texts)).input_ids), default=0)
    found.model_max_length = min(LONGEST, max(SHORTEST, -(-longest // 8) * 8))
    return found


def _words(plain: CLIPTokenizer, text: str) -> list[str]:
    """What the tokenizer takes for words, in its letters for bytes."""
    backend = plain.backend_tokenizer
    normalised = backend.normalizer.normalize_str(text)
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalised)]


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte pairs, in the order they are joined, until every word is one, or there are enough.

    Always the same ones of the same words: the trainer orders pairs that are as frequent by their
    letters' numbers, which it draws anew each time for letters with its suffix of a word's end
    (findings/tokenizers_trains_another_vocabulary_each_time.sh). So last letters are made others.
    """
    letters = sorted({letter for word in words for letter in word})
    last = {letter: chr(LAST + n) for n, letter in enumerate(letters)}
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=MOST_TOKENS, min_frequency=1, show_progress=False)
    model.train_from_iterator([word[:-1] + last[word[-1]] for word in words], trainer)
    found = json.loads(model.to_str())["model"]["merges"]
    spelled = str.maketrans({own: f"{letter}{WORD_END}" for letter, own in last.items()})
    return [(left.translate(spelled), right.translate(spelled)) for left, right in found]


def tokenise(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Token numbers [T, length], padded as StableDiffusionPipeline pads."""
    batch = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    tokens: torch.Tensor = batch.input_ids
    return tokens


def cut_texts(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> int:
    """How many texts are longer than the tokenizer reads, and lose their end."""
    ids = tokenizer(list(texts), verbose=False).input_ids
    return sum(len(each) > tokenizer.model_max_length for each in ids)
