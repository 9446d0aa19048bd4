"""Captions: which words count, a tiny captioner from a folder, what is refused beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysynth.config.files import load_config
from raysynth.errors import ConfigError, ModelError, StageError
from raysynth.grouping import biased
from raysynth.grouping.biased import CAPTIONED, CAPTIONS, Asked, captioned
from raysynth.grouping.captions import speaking_of, top_words, vocabulary_of, words_of
from raysynth.grouping.checks import check
from raysynth.grouping.methods.conflict_mining import ConflictMiningKnobs
from raysynth.models.captioner import load_captioner
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import ImageSet
from tests.synthesis.conftest import GROUPS
from tests.synthesis.random_models import write_clip

WORDS = ("coat", "grass", "gravel", "green", "grey")
BASE = BaseConfigSection(device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def captioner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BLIP of two narrow layers that knows WORDS, as save_pretrained writes it."""
    import transformers

    folder = tmp_path_factory.mktemp("blip")
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(known))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    size |= {"num_hidden_layers": 2, "projection_dim": 16}
    text = size | {
        "vocab_size": len(known),
        "max_position_embeddings": 64,
        "encoder_hidden_size": 16,
    }
    text |= {"bos_token_id": 2, "eos_token_id": 4, "sep_token_id": 3, "pad_token_id": 0}
    config = transformers.BlipConfig(
        text_config=text,
        vision_config=size | {"image_size": 32, "patch_size": 16},
        image_text_hidden_size=16,
    )
    torch.manual_seed(1)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    sides = {"height": 32, "width": 32}
    transformers.BlipImageProcessor(size=sides).save_pretrained(folder)
    return folder


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_words_are_those_with_content_each_once():
    assert words_of("A photo of the Grey coat, on grass: a coat!") == ["grey", "coat", "grass"]


def test_captions_that_count_speak_of_the_most_frequent_words():
    said = ["a coat on grass", "a coat on green grass", "grass", "a dog", "an ape"]
    assert top_words(said, 2) == ("grass", "coat")
    assert top_words(said, 3, leave=["coat"]) == ("grass", "ape", "dog"), "ties by alphabet"
    assert speaking_of(said, ["grass", "coat"]) == said[:3]


def test_the_vocabulary_is_what_both_sides_speak_of_besides_the_labels():
    meadow = ["a coat on grass", "a coat on green grass", "a pullover on a lawn"]
    yard = ["a coat on gravel", "a pullover on gravel", "a grey coat"]
    found = vocabulary_of([meadow, yard], 4, ["pullover", "winter coat"])
    assert found == ["grass", "green", "lawn", "gravel", "grey"]


def test_a_captioner_of_a_folder_says_the_same_of_an_image_every_time(captioner_folder):
    captioner = load_captioner(str(captioner_folder), BASE, None, "a knob")
    said = captioner.captions(pixels(3), 3)
    assert len(said) == 9 and all(set(caption.split()) <= set(WORDS) for caption in said)
    assert any(said)
    again = load_captioner(str(captioner_folder), BASE, None, "a knob").captions(pixels(3)[1:], 3)
    assert again == said[3:]


def asked(folder: Path) -> Asked:
    knobs = ConflictMiningKnobs(captioner=str(folder))
    config = load_config(None, ["base.device=cpu", "base.dtype=float32"])
    return Asked("", GROUPS, ("train",), blueprint_of(config), config.prompts, knobs, ())


def images(count: int) -> ImageSet:
    label = np.arange(count) % 2
    planes = np.ascontiguousarray(pixels(count).transpose(0, 3, 1, 2))
    return ImageSet(planes, label, label * 2, np.array([str(n) for n in range(count)]))


def test_both_sides_of_every_class_are_captioned(captioner_folder, monkeypatch):
    seen: list[tuple[int, int]] = []

    class Said:
        def captions(self, pixels: np.ndarray, each: int) -> list[str]:
            seen.append((len(pixels), each))
            return [["a coat on gravel", "a coat on grass"][len(seen) == 1]] * len(pixels) * each

    monkeypatch.setattr(biased, "load_captioner", lambda *given: Said())
    some = images(2 * CAPTIONED + 20)
    conflict = np.arange(len(some.label)) < 10
    assert captioned(asked(captioner_folder), some, conflict) == ("grass", "gravel")
    assert seen == [(2 * CAPTIONED, CAPTIONS), (10, CAPTIONS)]


def test_a_real_captioner_names_words_or_says_that_it_has_none(captioner_folder):
    given = (asked(captioner_folder), images(8), np.arange(8) < 2)
    try:
        found = captioned(*given)
    except StageError as error:
        assert "expected two words or more. Fix: another captioner" in str(error)
    else:
        assert set(found) <= set(WORDS) - {"coat"}


def checked(**knobs: Any) -> None:
    values = json.dumps({"name": "conflict_mining", **knobs})
    check(load_config(None, ["dataset.attributes=unknown", f"grouping.method={values}"]))


def test_what_cannot_caption_is_refused_before_it_is_loaded(captioner_folder, tmp_path):
    checked(captioner=str(captioner_folder))
    with pytest.raises(ModelError, match=r"lacks config.json, .*Fix: check the path"):
        checked(captioner=str(tmp_path))
    with pytest.raises(ModelError, match=r"model_type 'clip'; expected an image-to-text model"):
        checked(captioner=str(write_clip(tmp_path / "clip")))
    with pytest.raises(ConfigError, match=r"captioner_revision is None; expected the commit"):
        checked(captioner="Salesforce/blip-image-captioning-base")
    checked(captioner="Salesforce/blip-image-captioning-base", captioner_revision="0" * 40)
    with pytest.raises(ConfigError, match=r"both name words"):
        checked(captioner=str(captioner_folder), vocabulary=["a", "b"])
