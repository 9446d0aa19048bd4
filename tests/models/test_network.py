"""The small network's shipped weights: what they know, what they must not know, how they load."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pretraining.loop import Plan
from pretraining.network import KNOWN, held_out_accuracy, train_network, write
from pretraining.photographs import HELD_OUT_PER_CLASS, BaseGarments
from raysynth.config.files import load_config
from raysynth.datasets.garments import CLASSES
from raysynth.networks.build import blueprint_of
from raysynth.networks.checks import UNSEEN
from raysynth.networks.network import build_network
from raysynth.networks.small import WEIGHTS, SmallNetwork, load_embedded
from tests.training.tiny import tiny_groups


def test_shipped_weights_are_small_and_say_what_they_know():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 1_500_000
    for name, known in KNOWN.items():
        with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
            assert file.metadata()["garments"] == ", ".join(known)
            assert not [key for key in file.keys() if key.startswith("classifier")]  # noqa: SIM118
    assert not set(KNOWN["other_garments"]) & set(UNSEEN) and KNOWN["all_garments"] == CLASSES


def test_a_pretrained_start_shares_the_encoder_and_not_the_head():
    config = load_config(None, ["classifier.start=pretrained", "classifier.precision=float32"])
    first, second = (
        build_network(blueprint_of(config), tiny_groups(), 32, seed).state() for seed in (0, 1)
    )
    with safe_open(WEIGHTS / "other_garments.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118
            assert torch.equal(first[key], file.get_tensor(key).to(first[key].dtype))
    assert torch.equal(first["stem.weight"], second["stem.weight"])
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])


@pytest.fixture
def garments() -> BaseGarments:
    """Random cut-outs whose brightness is their class."""
    each = HELD_OUT_PER_CLASS + 20
    labels = torch.arange(10).repeat_interleave(each)
    cutouts = torch.full((len(labels), 2, 28, 28), 255, dtype=torch.uint8)
    cutouts[:, 0] = (labels * 25).to(torch.uint8)[:, None, None]
    return BaseGarments(cutouts, labels, [])


def test_training_sees_the_known_garments_only_and_writes_what_loads(garments, tmp_path):
    drawn: list[np.ndarray] = []
    sample = BaseGarments.sample

    class Watched(BaseGarments):
        def sample(self, count, class_weights, dice):
            positions = sample(self, count, class_weights, dice)
            drawn.append(self.labels[positions].numpy())
            return positions

    base = Watched(garments.cutouts, garments.labels, [])
    known = KNOWN["other_garments"]
    network = train_network(Plan("other_garments", 3, tmp_path, 0), base, known)
    names = {CLASSES[label] for label in np.concatenate(drawn)}
    assert names == set(known)
    assert 0 <= held_out_accuracy(network, base, known) <= 1
    write(network, known, tmp_path / "small" / "other_garments.safetensors")
    fresh = SmallNetwork((32, 64, 128), 3, 2)
    load_embedded(fresh, "other_garments")  # the shipped ones
    assert fresh.classifier.out_features == 2
