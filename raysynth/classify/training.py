"""Two-stage training: an encoder's optimizer steps, and the heads fitted on its snapshots.

A `Plan` says all that decides one training; `fit` runs it and yields a `Snapshot` at every
evaluation, so that the caller may report, keep or stop. References, search trials and the final
classifier are plans, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysynth.classify.augment import augmented
from raysynth.classify.data import Data, ImageSet, draw_balanced
from raysynth.classify.head import Head, Objective, fit_heads, image_weights
from raysynth.classify.losses import GroupDRO, mixed_loss
from raysynth.classify.metrics import GroupMetrics, group_metrics
from raysynth.classify.network import Network, build_network
from raysynth.config import Config
from raysynth.errors import StageError

MAX_GRAD_NORM = 5.0
WARM_UP = 0.2


@dataclass(frozen=True)
class HeadSpec:
    """A head evaluated on every snapshot: the one trained along, or one refitted on real images."""

    objective: Objective | Literal["trained"]
    weight_decay: float = 0.0

    @property
    def name(self) -> str:
        """Distinct text, e.g. `balanced-0.01`."""
        return (
            "trained" if self.objective == "trained" else f"{self.objective}-{self.weight_decay:g}"
        )


@dataclass(frozen=True)
class Plan:
    """One encoder training and the heads tried on it; everything but the images and `Config`.

    `ratio`: synthetic images used / real training images; 0 trains the encoder on real images.
    `dro_step_size`: group-DRO on `balanced` batches when above 0. `seed`: index of the seed.
    """

    ratio: float
    steps: int
    learning_rate: float
    weight_decay: float
    heads: tuple[HeadSpec, ...]
    sampling: Literal["uniform", "balanced"] = "uniform"
    beta: float = 1.0
    temperature: float = 0.1
    dro_step_size: float = 0.0
    evaluations: int = 4
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Snapshot:
    """The network after `step` optimizer steps; heads and their metrics by `HeadSpec.name`."""

    step: int
    network: Network
    validation: dict[str, GroupMetrics]
    heads: dict[str, Head] = field(default_factory=dict)

    def best(self) -> tuple[str, GroupMetrics]:
        """The head of the best validation score."""
        name = max(self.validation, key=lambda head: self.validation[head].score)
        return name, self.validation[name]


@dataclass(frozen=True)
class Features:
    """What an encoder makes of the real images, float32: all that heads are fitted and judged on.

    train [N, D], None where no head is refitted; validation [M, D]; logits [M, K] of the head that
    was trained along, on validation.
    """

    train: NDArray[np.float32] | None
    validation: NDArray[np.float32]
    logits: NDArray[np.float32]


def encode(plan: Plan, network: Network, data: Data) -> Features:
    """The network's features of the real images, as the plan's heads need them."""
    features, logits = network.outputs(data.validation)
    refitted = any(spec.objective != "trained" for spec in plan.heads)
    train = network.outputs(data.train)[0].cpu().numpy() if refitted else None
    return Features(train, features.cpu().numpy(), logits.cpu().numpy())


def encode_frozen(plan: Plan, data: Data, config: Config) -> Features:
    """Features of the encoder that a plan of no steps leaves as it was loaded."""
    seed = seed_of(config.seed, plan.seed)
    return encode(plan, build_network(config, data.groups, data.train.size, seed), data)


def fit(
    plan: Plan, data: Data, config: Config, frozen: Features | None = None
) -> Iterator[Snapshot]:
    """Train as planned; yields a snapshot at each of the plan's evaluations, evenly spaced.

    The network is the same object in every snapshot and trains on after it. A plan of no steps
    yields one snapshot, of the encoder as it was loaded, whose features may be given (`frozen`).

    Raises
    ------
    StageError
        When the loss is no longer finite.
    """
    seed = seed_of(config.seed, plan.seed)
    network = build_network(config, data.groups, data.train.size, seed)
    if plan.steps == 0:
        found = try_heads(plan, data, frozen or encode(plan, network, data), network.device)
        yield Snapshot(0, network, *found)
        return
    images = stage_one_images(plan, data, seed)
    batches = batch_rows(images, plan, config.classifier.batch_size, data.groups.count, seed)
    loss = _loss(plan, data.groups.count)
    optimizer, schedule = _optimizer(network, plan)
    generator = torch.Generator().manual_seed(seed)
    done = 0
    for stop in evaluation_steps(plan.steps, plan.evaluations):
        network.model.train()
        finite = torch.ones((), dtype=torch.bool, device=network.device)
        while done < stop:
            value = train_step(network, images, next(batches), loss, optimizer, generator, config)
            schedule.step()
            finite &= value.isfinite()
            done += 1
        if not finite:
            raise StageError(
                f"the classifier's loss was not finite before step {stop} (learning rate "
                f"{plan.learning_rate:g}); expected a finite loss. Fix: lower the learning rate"
            )
        found = try_heads(plan, data, encode(plan, network, data), network.device)
        yield Snapshot(stop, network, *found)


def train_step(
    network: Network,
    images: ImageSet,
    rows: NDArray[np.int64],
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: Config,
) -> Tensor:
    """One optimizer step on the given rows; returns the detached loss, without waiting for it."""
    pixels = torch.from_numpy(images.pixels[rows]).to(network.device)
    label = torch.from_numpy(images.label[rows]).to(network.device)
    group = torch.from_numpy(images.group[rows]).to(network.device)
    classifier = config.classifier
    features, logits = network(
        augmented(pixels, generator, classifier.flip, classifier.crop_padding)
    )
    value = loss(logits, features, label, group)
    optimizer.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(network.model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    return value.detach()


def try_heads(
    plan: Plan, data: Data, features: Features, device: torch.device
) -> tuple[dict[str, GroupMetrics], dict[str, Head]]:
    """Validation metrics of the plan's heads, and those of them that were fitted here.

    They are fitted to the features of the real training images, the decays of one objective
    together.
    """
    predicted: dict[str, NDArray[np.int64]] = {}
    heads: dict[str, Head] = {}
    seen = torch.tensor(features.validation, device=device)
    for objective in dict.fromkeys(spec.objective for spec in plan.heads):
        specs = [spec for spec in plan.heads if spec.objective == objective]
        if objective == "trained":
            predicted |= {spec.name: features.logits.argmax(axis=1) for spec in specs}
            continue
        found = fit_heads(
            torch.tensor(features.train, device=device),
            data.train.label,
            image_weights(data.train.group, objective),
            [spec.weight_decay for spec in specs],
            len(data.groups.label_names),
        )
        for spec, head in zip(specs, found, strict=True):
            heads[spec.name], predicted[spec.name] = head, head.predict(seen)
    label, group = data.validation.label, data.validation.group
    counts = data.train.counts(data.groups.count)
    metrics = {
        spec.name: group_metrics(predicted[spec.name], label, group, counts) for spec in plan.heads
    }
    return metrics, heads


def stage_one_images(plan: Plan, data: Data, seed: int) -> ImageSet:
    """What the encoder is trained on: a balanced draw of synthetic images, or the real ones.

    Never both: "looks synthetic" would become the new shortcut (FFR, arXiv 2308.04553).
    """
    if plan.ratio == 0:
        return data.train
    count = round(plan.ratio * len(data.train))
    rows = draw_balanced(data.synthetic.group, count, data.groups.count, seed)
    s = data.synthetic
    return ImageSet(s.pixels[rows], s.label[rows], s.group[rows], s.ids[rows])


def batch_rows(
    images: ImageSet, plan: Plan, size: int, groups: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Endless batches: shuffled epochs (`uniform`), or groups equally often (`balanced`)."""
    rng = np.random.default_rng([seed, 211])
    size = min(size, len(images))
    if plan.sampling == "balanced":
        probability = image_weights(images.group, "balanced")
        while True:
            yield rng.choice(len(images), size, p=probability)
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Evenly spaced step numbers of the evaluations; the last is `steps`."""
    return sorted({max(1, round(steps * (i + 1) / evaluations)) for i in range(evaluations)})


def seed_of(run_seed: int, index: int) -> int:
    """The seed of the `index`-th repetition in a run."""
    return int(np.random.SeedSequence([run_seed, index]).generate_state(1)[0])


def _loss(plan: Plan, groups: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    if plan.dro_step_size > 0:
        robust = GroupDRO(groups, plan.dro_step_size)
        return lambda logits, features, label, group: robust(logits, label, group)
    return lambda logits, features, label, group: mixed_loss(
        logits, features, label, plan.beta, plan.temperature
    )


def _optimizer(
    network: Network, plan: Plan
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, without weight decay on norms and biases; warm-up, then a cosine to zero."""
    parameters = list(network.model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=plan.learning_rate,
        fused=True,
    )
    warm = max(1, round(WARM_UP * plan.steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, plan.steps - warm)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
