"""A network that learns the bias, on a worker: what it misreads, and what these images show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.errors import StageError
from raysynth.grouping.captions import vocabulary_of
from raysynth.grouping.generated import drawn_images
from raysynth.grouping.mining import Sides, log_odds, mine, two_words
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import spoken
from raysynth.groups.settings import PromptConfig
from raysynth.models.captioner import load_captioner
from raysynth.models.clip import load_clip, of_planes
from raysynth.models.threads import use_threads
from raysynth.networks.build import Blueprint
from raysynth.networks.images import ImageSet
from raysynth.networks.network import Network, build_network
from raysynth.training.adamw import AdamW
from raysynth.training.data import load_real
from raysynth.training.fit import seed_of, train_step
from raysynth.training.losses import generalised_cross_entropy

STREAM = 331
"""Of the random numbers that batches and samples are drawn with."""
INDEX = 331
"""Of the network's seed among those of the run's trainings."""
SHOWN = 512
"""Images of a side that CLIP looks at, at most."""
AT_ONCE = 256
CAPTIONED = 100
"""Images of a class's side that are captioned, at most (theirs: the 100 or 200 misread most)."""
CAPTIONS = 3
"""Of each image (theirs)."""


@dataclass(frozen=True)
class Asked:
    """What a worker needs: the real table's folder, whose networks, what is spoken, the knobs.

    `knobs`: those of `methods.conflict_mining`; `words`: the vocabulary; (): the captioner's.
    """

    real: str
    groups: Groups
    splits: tuple[str, ...]
    blueprint: Blueprint
    prompts: PromptConfig
    knobs: Any
    words: tuple[str, ...]


@dataclass(frozen=True)
class Mined:
    """What was found: ids [N], attribute [N] and posterior [N, 2] of the images of all splits.

    `words`: of the two attributes. `facts`: see `mined`.
    """

    ids: list[str]
    attribute: NDArray[np.int64]
    posterior: NDArray[np.float64]
    words: tuple[str, str]
    facts: dict[str, Any]


def biased_network(
    images: ImageSet, groups: Groups, blueprint: Blueprint, knobs: Any, q: float | None
) -> Network:
    """A network trained on images to learn their bias first; `q`: None, plain cross-entropy.

    Neither augmentation nor weight decay, as what is seen often enough must not be regularised away
    into what is seen seldom. Raises StageError where the loss is no longer finite.
    """
    seed = seed_of(blueprint.seed, INDEX)
    network = build_network(blueprint, groups, images.size, seed)
    classifier = blueprint.classifier
    plain = classifier.model_copy(update={"flip": False, "crop_padding": 0})
    rate = knobs.learning_rate or classifier.rates().stage_one
    optimizer = AdamW(network.model, rate, 0.0, knobs.steps)
    dice, unused = np.random.default_rng([seed, STREAM]), torch.Generator()
    finite = torch.ones((), dtype=torch.bool, device=network.device)
    network.model.train()

    def loss(logits: Any, features: Any, label: Any, group: Any, weight: Any) -> torch.Tensor:
        if q is None:
            return torch.nn.functional.cross_entropy(logits, label)
        return generalised_cross_entropy(logits, label, q).mean()

    for _ in range(knobs.steps):
        rows = dice.integers(0, len(images), classifier.batch_size)
        batch = (images.pixels[rows], images.label[rows], images.label[rows], None)
        finite &= train_step(network, batch, loss, optimizer, unused, plain).isfinite()
    if not finite:
        raise StageError(
            f"grouping.method=conflict_mining: the biased network's loss was not finite (learning "
            f"rate {rate:g}); expected a finite loss. Fix: a lower learning_rate of the method"
        )
    return network


def mined(asked: Asked, cpus: float) -> Mined:
    """Train, mine and name, on a worker of `cpus`.

    The facts: `threshold` (label name -> log odds above which an image conflicts), `conflicting`
    (label name -> training images that do), `aligned` (label name -> its aligned side's word),
    `contrast` (label name -> how much further apart the two words are on its sides, in CLIP's
    cosine), `vocabulary` (the captions' words, where they are asked).
    """
    use_threads(cpus)
    size, names = asked.blueprint.classifier.image_size, asked.groups.label_names
    train = load_real(asked.real, "train", size)
    learnt = train
    if asked.knobs.biased_on == "synthetic":
        told = (asked.groups, asked.prompts, asked.blueprint.base, asked.knobs)
        learnt = drawn_images(asked.real, train, *told, asked.blueprint.seed)
    network = biased_network(learnt, asked.groups, asked.blueprint, asked.knobs, asked.knobs.q)
    odds = _odds(network, train)
    count = asked.knobs.top_k if isinstance(asked.knobs.top_k, int) else None
    sides = mine(odds, train.label, count, asked.knobs.least, asked.knobs.most)
    conflict = sides.conflicts(odds, train.label)
    spoken_of = asked.words or captioned(asked, train, conflict)
    first, second, shows_b, contrast = _named(asked, spoken_of, train, conflict)
    parts = [_of_split(train, odds, sides, shows_b)]
    for split in asked.splits[1:]:
        images = load_real(asked.real, split, train.size)
        parts.append(_of_split(images, _odds(network, images), sides, shows_b))
    words = (spoken_of[first], spoken_of[second])
    counts = np.bincount(train.label[conflict], minlength=len(names))
    facts = {
        "threshold": _told(names, sides.threshold),
        "conflicting": dict(zip(names, counts.tolist(), strict=True)),
        "aligned": {name: words[int(b)] for name, b in zip(names, shows_b, strict=True)},
        "contrast": _told(names, contrast),
        **({} if asked.words else {"vocabulary": list(spoken_of)}),
    }
    ids = [name for part in parts for name in part[0]]
    attribute, posterior = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
    return Mined(ids, attribute, posterior, words, facts)


def _told(names: tuple[str, ...], values: NDArray[Any]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


def _odds(network: Network, images: ImageSet) -> NDArray[np.float64]:
    return log_odds(network.outputs(images)[1].cpu().numpy(), images.label)


def _of_split(
    images: ImageSet, odds: NDArray[Any], sides: Sides, shows_b: NDArray[np.bool_]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """ids, attributes [N] and posteriors [N, 2] of a split's images."""
    turned = shows_b[images.label]
    attribute = (sides.conflicts(odds, images.label) ^ turned).astype(np.int64)
    conflict = sides.posterior(odds, images.label)
    second = np.where(turned, 1 - conflict, conflict)
    return images.ids.tolist(), attribute, np.stack([1 - second, second], axis=1)


def captioned(asked: Asked, train: ImageSet, conflict: NDArray[np.bool_]) -> tuple[str, ...]:
    """What a captioner speaks of where images conflict, and where they do not; see `captions`.

    Raises ModelError: see `load_captioner`; StageError where it says fewer than two words.
    """
    knobs, labels = asked.knobs, len(asked.groups.label_names)
    key = "grouping.method: captioner"
    told = (asked.blueprint.base, knobs.captioner_revision, key)
    captioner = load_captioner(knobs.captioner, *told)
    dice, sides = np.random.default_rng([asked.blueprint.seed, STREAM, 2]), []
    for side in (False, True):
        rows = [
            dice.permutation(np.flatnonzero((train.label == y) & (conflict == side)))[:CAPTIONED]
            for y in range(labels)
        ]
        pixels = train.pixels[np.sort(np.concatenate(rows))].transpose(0, 2, 3, 1)
        sides.append(captioner.captions(np.ascontiguousarray(pixels), CAPTIONS))
    words = vocabulary_of(sides, 2 * labels, asked.groups.label_words)
    if len(words) < 2:
        raise StageError(
            f"{key}: {knobs.captioner} says {sides[0][:2] + sides[1][:2]} of the images, of which "
            f"{words} are left; expected two words or more. Fix: another captioner, or vocabulary"
        )
    return tuple(words)


def _named(
    asked: Asked, words: tuple[str, ...], train: ImageSet, conflict: NDArray[np.bool_]
) -> tuple[int, int, NDArray[np.bool_], NDArray[np.float64]]:
    """As `two_words`, and [K] how far apart the words are on a class's two sides."""
    clip = load_clip(asked.blueprint.base)
    labels = len(asked.groups.label_names)
    told = replace(asked.groups, attribute_names=words, attribute_words=words, aligned=())
    texts = [spoken(asked.prompts, told, g, token="") for g in range(told.count)]
    vectors = clip.texts(texts).reshape(labels, len(words), -1)  # [K, V, D]
    dice = np.random.default_rng([asked.blueprint.seed, STREAM, 1])
    similar = np.zeros((2, labels, len(words)))
    for side in (0, 1):
        for y in range(labels):
            rows = np.flatnonzero((train.label == y) & (conflict == side))
            rows = np.sort(dice.permutation(rows)[:SHOWN])
            shown = of_planes(clip.images, train.pixels[rows], AT_ONCE)
            similar[side, y] = (shown @ vectors[y].T).mean(axis=0)
    first, second, shows_b = two_words(similar[0], similar[1])
    apart = similar[1] - similar[0]
    return first, second, shows_b, np.abs(apart[:, first] - apart[:, second])
