"""Words of the captions are tokens; anything else is still told."""

from __future__ import annotations

from transformers import CLIPTokenizer

from raysynth.pretraining.tokens import LONGEST, SHORTEST, build_tokenizer, cut_texts, tokenise

TEXTS = ["", "a photo of a Hexagonal nut on rusty-steel", "größe 12"]


def test_each_word_is_one_token_and_others_are_bytes(tmp_path):
    tokenizer = build_tokenizer(TEXTS)
    assert tokenizer.tokenize("a hexagonal nut, steel") == [
        "a</w>",
        "hexagonal</w>",
        "nut</w>",
        ",</w>",
        "steel</w>",
    ]
    strange = tokenizer("zebra größe").input_ids
    assert tokenizer.decode(strange, skip_special_tokens=True) == "zebra größe"
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again("zebra größe").input_ids == strange
    assert again.model_max_length == SHORTEST


def test_prompts_are_as_long_as_the_longest_caption_and_no_longer_than_clips():
    assert build_tokenizer([" ".join(["nut"] * 30)]).model_max_length == 32
    tokenizer = build_tokenizer([" ".join(["nut"] * 200)])
    assert tokenizer.model_max_length == LONGEST
    assert tokenise(tokenizer, ["nut", " ".join(["nut"] * 200)]).shape == (2, LONGEST)


def test_the_same_captions_are_the_same_tokens_each_time():
    """Workers number tokens by themselves; so do those that go on later."""
    words = "a photo of red blue day night square round at in on painting bright dark picture"
    found = [build_tokenizer(words.split()) for _ in range(12)]
    assert len({tuple(sorted(each.get_vocab().items())) for each in found}) == 1
    assert len({each.backend_tokenizer.to_str() for each in found}) == 1
    assert found[0].tokenize("a painting") == ["a</w>", "painting</w>"]


def test_texts_that_lose_their_end_are_counted():
    texts = ["nut", " ".join(["nut"] * (LONGEST - 2)), " ".join(["nut"] * (LONGEST - 1))]
    assert cut_texts(build_tokenizer(texts), texts) == 1
