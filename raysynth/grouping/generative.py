"""A base model fine-tuned on known and unknown attributes says which ones unknown images show.

Shapes: B images of a batch, N of a split, A attributes, [C, h, w] latents.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysynth.errors import StageError
from raysynth.grouping.mixture import (
    classification_losses,
    elbo_temperature,
    likeliest_temperature,
    mixture_losses,
)
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.groups.prompts import alone, spoken
from raysynth.groups.settings import PromptConfig
from raysynth.models.base import load_base
from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.device import autocast, pick_dtype
from raysynth.models.latents import encode, images_at_once
from raysynth.models.likelihood import Measure, log_posterior, noise_of, step_errors
from raysynth.models.settings import BaseConfigSection
from raysynth.models.threads import use_threads
from raysynth.storage.tables import decode_images, read_parts, split_files
from raysynth.training.adamw import AdamW

STREAM = 337
"""Of the random numbers that batches and noise are drawn with."""
WEIGHT_DECAY = 0.01
KEPT = 0.5
"""Of the weights' moving average at every step, where they are averaged (theirs)."""
AT_ONCE = 128
"""Latents that the network sees at once where nothing is trained."""
JUDGED = 32
"""Known images of each group that the temperature is chosen on."""
MIDDLE, LOOKS = (0.42, 0.55), tuple(0.3 + 0.08 * k for k in range(6))
"""Shares of the noise schedule at which posteriors are taken: in training, and at the end."""
TIMES_CHOSEN = 5
"""How often a temperature is chosen after the warm-up."""


@dataclass(frozen=True)
class Asked:
    """What a worker needs; `knobs`: those of `methods.dmis`, settled."""

    real: str
    groups: Groups
    splits: tuple[str, ...]
    base: BaseConfigSection
    prompts: PromptConfig
    knobs: Any
    seed: int


@dataclass(frozen=True)
class Latents:
    """Images: ids [N]; clean [N, C, h, w]; label, attribute [N], the latter -1 where unknown.

    On the CPU, whatever the network is on.
    """

    ids: list[str]
    clean: Tensor
    label: Tensor
    attribute: Tensor

    def rows(self, known: bool) -> NDArray[np.int64]:
        """Row numbers of the images whose attribute is known, or is not."""
        return np.flatnonzero((self.attribute != UNKNOWN).numpy() == known)

    def take(self, rows: NDArray[np.int64]) -> Latents:
        """The images of these row numbers."""
        parts = (self.clean[rows], self.label[rows], self.attribute[rows])
        return Latents([self.ids[row] for row in rows], *parts)

    def groups(self, width: int) -> NDArray[np.int64]:
        """[N] groups of the images, all known."""
        return (self.label * width + self.attribute).numpy()


@dataclass(frozen=True)
class Inferred:
    """ids [N] and posterior [N, A] of the images of unknown attribute, of all splits.

    `counts`: split -> how many they are; `temperature`: of the posteriors.
    """

    ids: list[str]
    posterior: NDArray[np.float64]
    counts: dict[str, int]
    temperature: float


class Model:
    """The base in training: what it says under every group's prompt, and without attribute.

    In float32, autocast where that is wider than 16-bit floats: nothing is scaled here.
    """

    def __init__(self, asked: Asked) -> None:
        trained = {"dtype": "float32", "quantization": "none"}
        self.base = load_base(asked.base.model_copy(update=trained))
        self.groups, self.knobs = asked.groups, asked.knobs
        precision = pick_dtype(asked.base.dtype, self.base.device)
        whole = torch.float32 if precision == torch.float16 else precision
        cast = partial(autocast, self.base.device, whole)
        self.network = self.base.model.requires_grad_(True)
        self.denoise = Denoiser(self.base, self.network, cast)
        self.judge = self.denoise
        if self.knobs.published:  # by the average of the weights
            average = copy.deepcopy(self.network).requires_grad_(False)
            self.judge = Denoiser(self.base, average, cast)
        groups = asked.groups
        told = [spoken(asked.prompts, groups, g) for g in range(groups.count)]
        first = (groups.of_label(label)[0] for label in range(len(groups.label_names)))
        told += [alone(asked.prompts, groups, g, "label") for g in first]
        self.told: Condition = self.base.condition(told)
        self.prior: Tensor | None = None
        """[K, A] of the attributes in every class; None: all alike."""

    @property
    def width(self) -> int:
        """Number of attributes."""
        return len(self.groups.attribute_names)

    def candidates(self, label: Tensor) -> Tensor:
        """[B, A] rows of `told` of an image's class under every attribute."""
        return label[:, None] * self.width + torch.arange(self.width)

    def says(self, noisy: Tensor, timestep: Tensor, rows: Tensor) -> Tensor:
        """[B, C, h, w] the raw prediction of noisy images under rows of `told`."""
        return self.denoise(noisy, timestep, self.told.take(rows)).raw

    @torch.no_grad()
    def errors(self, images: Latents, shares: Sequence[float], noise: Tensor) -> Tensor:
        """[N, A, K] errors under every attribute at these shares of the noise schedule."""
        clean, told = images.clean.to(self.base.device), self.candidates(images.label)
        given = (self.judge, clean, self.told, torch.tensor(shares), noise, told)
        return step_errors(*given, Measure(at_once=AT_ONCE)).cpu()

    def posterior(
        self, images: Latents, shares: Sequence[float], noise: Tensor, temperature: float
    ) -> Tensor:
        """[N, A] how likely the model finds every attribute."""
        prior = None if self.prior is None else self.prior[images.label]
        errors = self.errors(images, shares, noise)
        return log_posterior(errors, torch.ones(len(shares)), 1 / temperature, prior).exp()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights towards the trained ones."""
        if self.judge is not self.denoise:
            pairs = zip(self.judge.model.parameters(), self.network.parameters(), strict=True)
            for mean, now in pairs:
                mean.lerp_(now, 1 - KEPT)


def read_latents(model: Model, real: str, split: str, *, known: bool = True) -> Latents:
    """The images of a split below the real table's folder; `known`: False, the others alone."""
    side = model.base.image_size
    each, columns = images_at_once(side, AT_ONCE), ("id", "image", "label", "attribute")
    found: list[tuple[list[str], Tensor, Any, Any]] = []
    for part in read_parts(real, columns, split_files(real, split)):
        table = part if known else part.filter(pc.equal(part["attribute"], UNKNOWN))
        for first in range(0, len(table), each):
            rows = table.slice(first, each)
            clean = encode(model.base, decode_images(rows["image"], side)).cpu().clone()
            numbers = (rows[name].to_numpy().astype(np.int64) for name in columns[2:])
            found.append((rows["id"].to_pylist(), clean, *map(torch.from_numpy, numbers)))
    if not found:
        nothing = torch.zeros(0, dtype=torch.int64)
        return Latents([], torch.zeros(0, 1, 1, 1), nothing, nothing)
    ids, *parts = zip(*found, strict=True)
    return Latents([name for some in ids for name in some], *map(torch.cat, parts))


def _batches(train: Latents, size: int, dice: np.random.Generator, width: int) -> Iterator[Any]:
    """(known rows, every group alike; unknown rows), half of a batch each."""
    known, hidden = train.rows(True), train.rows(False)
    group = train.groups(width)[known]
    members = [known[group == g] for g in np.unique(group)]
    half = size // 2 if len(hidden) else 0
    while True:
        turn = dice.permutation(len(members))
        rows = [dice.choice(members[turn[k % len(members)]]) for k in range(size - half)]
        yield np.array(rows), dice.choice(hidden, half) if half else hidden


def fit(model: Model, train: Latents, seed: int) -> None:
    """Fine-tune the model. Raises StageError where the loss is not finite."""
    knobs = model.knobs
    dice = np.random.default_rng([seed, STREAM])
    noise = torch.Generator().manual_seed(int(dice.integers(2**62)))
    optimizer = AdamW(model.network, knobs.learning_rate, WEIGHT_DECAY, knobs.steps)
    if knobs.prior == "counts":
        group = train.groups(model.width)[train.rows(True)]
        counts = np.bincount(group, minlength=model.groups.count).reshape(-1, model.width)
        model.prior = torch.from_numpy(counts / counts.sum(1, keepdims=True)).float()
    begins = round(knobs.warm_up * knobs.steps)
    every = max(1, (knobs.steps - begins) // TIMES_CHOSEN)
    batches = _batches(train, knobs.batch_size, dice, model.width)
    temperature: float | None = None
    finite = torch.ones((), dtype=torch.bool, device=model.base.device)
    for step in range(knobs.steps):
        if step >= begins and (step - begins) % every == 0:
            temperature = chosen_temperature(model, train, MIDDLE, seed)
        value = _loss(model, train, next(batches), noise, temperature)
        optimizer.step(value)
        model.follow()
        finite &= value.detach().isfinite()
    if not finite:
        raise StageError(
            "grouping.method=dmis: the loss was not finite; expected a finite loss. Fix: a lower "
            f"learning_rate of the method than {knobs.learning_rate:g}"
        )


def _loss(
    model: Model,
    train: Latents,
    rows: tuple[NDArray[Any], NDArray[Any]],
    noise: torch.Generator,
    temperature: float | None,
) -> Tensor:
    """Of a batch; `temperature`: None, unknown images are learnt without attribute."""
    known, hidden = rows
    prediction, device = model.base.prediction, model.base.device
    batch = train.take(np.concatenate(rows))
    clean, cut = batch.clean.to(device), len(known)
    drawn = torch.randn(clean.shape, generator=noise).to(device)
    timestep = prediction.draw(torch.rand(len(clean), generator=noise)).to(device)
    noisy, target = prediction.noised(clean, drawn, timestep)
    own = batch.label[:cut] * model.width + batch.attribute[:cut]
    nothing = model.groups.count + batch.label[cut:]
    said = model.says(noisy, timestep, torch.cat([own, nothing]))
    if temperature is None or not len(hidden):
        return (said - target).square().mean()
    given = (said[:cut] - target[:cut]).square().flatten(1).mean(1)
    others = (noisy[cut:], timestep[cut:], target[cut:], said[cut:])
    found = _unknown_losses(model, train.take(hidden), others, noise, temperature)
    return torch.cat([given, found]).mean()


def _unknown_losses(
    model: Model,
    images: Latents,
    parts: tuple[Tensor, Tensor, Tensor, Tensor],
    noise: torch.Generator,
    temperature: float,
) -> Tensor:
    """[H] of images of unknown attribute; `parts`: noisy, timestep, target, said plainly."""
    (noisy, timestep, target, plain), knobs, width = parts, model.knobs, model.width
    drawn = torch.randn(len(noisy), len(MIDDLE), *noisy.shape[1:], generator=noise)
    posterior = model.posterior(images, MIDDLE, drawn, temperature).to(noisy.device)
    sure = posterior.amax(1) >= knobs.confidence
    if knobs.hard:
        posterior = torch.nn.functional.one_hot(posterior.argmax(1), width).float()
    rows = model.candidates(images.label).flatten()
    noisy, timestep = (x.repeat_interleave(width, 0) for x in (noisy, timestep))
    said = model.says(noisy, timestep, rows).view(len(target), width, *noisy.shape[1:])
    found = mixture_losses(said, plain, target, posterior, sure)
    # Times the temperature, cross-entropy has the size of an error. Twice: a loss of these images
    # that is averaged with the others'.
    weight = 2 * knobs.classification_weight * (1 if knobs.published else temperature)
    return found + weight * classification_losses(said, target, posterior, temperature, sure)


def chosen_temperature(model: Model, train: Latents, shares: Sequence[float], seed: int) -> float:
    """The given one, the lower bound's, or the likeliest of known images."""
    asked = model.knobs.temperature
    if asked != "auto":
        return elbo_temperature(train.clean[0].numel()) if asked == "elbo" else float(asked)
    dice = np.random.default_rng([seed, STREAM, 1])
    known = train.rows(True)
    group = train.groups(model.width)[known]
    picked = [dice.permutation(known[group == g])[:JUDGED] for g in np.unique(group)]
    images = train.take(np.concatenate(picked))
    noise = noise_of(images.ids, range(len(shares)), images.clean.shape[1:])
    errors = model.errors(images, shares, noise).mean(-1)
    of_group = torch.from_numpy(images.groups(model.width))
    return likeliest_temperature(errors, images.attribute, of_group)


def posteriors(
    model: Model, images: Latents, shares: Sequence[float], temperature: float
) -> Tensor:
    """[N, A] how likely the model finds every attribute of images, by their own noise."""
    found = [torch.zeros(0, model.width)]
    for first in range(0, len(images.ids), AT_ONCE):
        some = images.take(np.arange(first, min(first + AT_ONCE, len(images.ids))))
        noise = noise_of(some.ids, range(len(shares)), some.clean.shape[1:])
        found.append(model.posterior(some, shares, noise, temperature))
    return torch.cat(found)


def inferred(asked: Asked, cpus: float) -> Inferred:
    """Train on a worker of `cpus`, and say of every image of unknown attribute what it shows."""
    use_threads(cpus)
    model = Model(asked)
    train = read_latents(model, asked.real, "train")
    fit(model, train, asked.seed)
    temperature = chosen_temperature(model, train, LOOKS, asked.seed)
    ids: list[str] = []
    found: list[Tensor] = []
    counts: dict[str, int] = {}
    for split in asked.splits:
        if split == "train":
            images = train.take(train.rows(False))
        else:
            images = read_latents(model, asked.real, split, known=False)
        ids, counts[split] = ids + images.ids, len(images.ids)
        found.append(posteriors(model, images, LOOKS, temperature))
    return Inferred(ids, torch.cat(found).double().numpy(), counts, temperature)
