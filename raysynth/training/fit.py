"""A plan carried out: its phases' optimizer steps, and the heads fitted on its snapshots.

`fit` yields a `Snapshot` at every evaluation, so that the caller may report, keep or stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raysynth.errors import StageError
from raysynth.groups.metrics import GroupMetrics, group_metrics
from raysynth.heads.fit import fit_all
from raysynth.heads.seen import Features, Fitted, Seen
from raysynth.networks.build import Blueprint
from raysynth.networks.images import Data
from raysynth.networks.linear import Head
from raysynth.networks.network import Network, build_network
from raysynth.networks.settings import ClassifierConfig
from raysynth.training.adamw import AdamW
from raysynth.training.augment import augmented
from raysynth.training.losses import GroupDRO, mixed_loss
from raysynth.training.mixing import Mixing
from raysynth.training.plan import Phase, Plan, evaluation_steps
from raysynth.training.trainset import TrainingSet, training_set

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""logits [B, K], features [B, D], label [B] (shares [B, K] of mixed images), group [B], weight
[B] or None -> loss."""


@dataclass(frozen=True)
class Snapshot:
    """The network after `step` steps of the last phase; heads and metrics by `HeadSpec.name`."""

    step: int
    network: Network
    validation: dict[str, GroupMetrics]
    fitted: dict[str, Fitted] = field(default_factory=dict)

    def best(self) -> tuple[str, GroupMetrics]:
        """The head of the best validation score."""
        name = max(self.validation, key=lambda head: self.validation[head].score)
        return name, self.validation[name]


def encode(plan: Plan, network: Network, data: Data, seed: int) -> Features:
    """The network's features of the images that the plan's heads need; `seed`: of the training."""
    features, logits = network.outputs(data.validation)
    refitted = any(spec.objective != "trained" for spec in plan.heads)
    train = network.outputs(data.train)[0].cpu().numpy() if refitted else None
    found = Features(train, features.cpu().numpy(), logits.cpu().numpy())
    if not plan.mixes:
        return found
    rows = training_set(plan.phases[0], data, seed).rows
    synthetic, _ = network.outputs(data.synthetic, rows)
    return replace(found, synthetic=(rows, synthetic.cpu().numpy()))


def encode_frozen(plan: Plan, data: Data, blueprint: Blueprint) -> Features:
    """Features of the encoder that a plan of no steps leaves as it was loaded."""
    seed = seed_of(blueprint.seed, plan.seed)
    return encode(plan, build_network(blueprint, data.groups, data.train.size, seed), data, seed)


def fit(
    plan: Plan, data: Data, blueprint: Blueprint, frozen: Features | None = None
) -> Iterator[Snapshot]:
    """Train as planned; yields a snapshot at each evaluation of the last phase, evenly spaced.

    The network is the same object in every snapshot and trains on after it. A plan of no steps
    yields one snapshot, of the encoder as it was loaded, whose features may be given (`frozen`).

    Raises
    ------
    StageError
        When the loss is no longer finite.
    """
    seed = seed_of(blueprint.seed, plan.seed)
    network = build_network(blueprint, data.groups, data.train.size, seed)
    if plan.frozen:
        yield _snapshot(plan, network, data, frozen or encode(plan, network, data, seed), 0, seed)
        return
    for number, phase in enumerate(plan.phases[:-1]):
        network = _earlier_phase(network, phase, number, data, blueprint, seed)
    network, images = _start(network, plan.last, data, blueprint, seed)
    stops = evaluation_steps(plan.last.steps, plan.evaluations)
    earlier: list[tuple[int, NDArray[np.float32]]] = []
    for step in _steps(network, images, plan.last, stops, blueprint, seed, len(plan.phases) - 1):
        features = replace(encode(plan, network, data, seed), earlier=tuple(earlier))
        yield _snapshot(plan, network, data, features, step, seed)
        earlier.append((step, features.logits))


def try_heads(
    plan: Plan,
    data: Data,
    features: Features,
    device: torch.device,
    head: Head | None = None,
    step: int = 0,
    seed: int = 0,
) -> tuple[dict[str, GroupMetrics], dict[str, Fitted]]:
    """The plan's heads on one snapshot's features, and their metrics on validation.

    `head`, `step`, `seed`: of the snapshot, see `Seen`.
    """
    fitted = fit_all(plan.heads, Seen(features, data, device, head, step, seed))
    counts = data.train.counts(data.groups.count)
    metrics = {}
    for name, one in fitted.items():
        rows = slice(None) if one.judged is None else one.judged
        label, group = data.validation.label[rows], data.validation.group[rows]
        metrics[name] = group_metrics(one.predicted[rows], label, group, counts)
    return metrics, fitted


def _snapshot(
    plan: Plan, network: Network, data: Data, features: Features, step: int, seed: int
) -> Snapshot:
    head = network.current_head()
    found = try_heads(plan, data, features, network.device, head, step, seed)
    return Snapshot(step, network, *found)


def _start(
    network: Network, phase: Phase, data: Data, blueprint: Blueprint, seed: int
) -> tuple[Network, TrainingSet]:
    """The network that a phase trains, and on what."""
    errors = phase.images == "real_errors"
    images = training_set(phase, data, seed, network.predict(data.train) if errors else None)
    if phase.fresh:
        network = build_network(blueprint, data.groups, data.train.size, seed)
    return network, images


def _earlier_phase(
    network: Network, phase: Phase, number: int, data: Data, blueprint: Blueprint, seed: int
) -> Network:
    """The network after a phase that is not the last: its last weights, or its best ones."""
    if phase.steps == 0:
        return network
    network, images = _start(network, phase, data, blueprint, seed)
    stops = evaluation_steps(phase.steps, max(1, phase.keep_best))
    counts = data.train.counts(data.groups.count)
    top, best = -math.inf, None
    for _ in _steps(network, images, phase, stops, blueprint, seed, number):
        if not phase.keep_best:
            continue
        seen = data.validation
        score = group_metrics(network.predict(seen), seen.label, seen.group, counts).score
        if score > top:
            top, best = score, network.state()
    if best is not None:
        network.load_state(best)
    return network


def _steps(
    network: Network,
    images: TrainingSet,
    phase: Phase,
    stops: list[int],
    blueprint: Blueprint,
    seed: int,
    number: int,
) -> Iterator[int]:
    """Optimizer steps of a phase; yields at every stop."""
    batches = images.batches(blueprint.classifier.batch_size, seed, number)
    loss = _loss(phase, images.groups)
    optimizer = AdamW(network.model, phase.learning_rate, phase.weight_decay, phase.steps)
    generator = torch.Generator().manual_seed(seed + number)
    mixing = Mixing.of(images, phase, network.head.out_features, seed, number)
    label, group = images.label, images.group
    done = 0
    for stop in stops:
        network.model.train()
        finite = torch.ones((), dtype=torch.bool, device=network.device)
        while done < stop:
            rows = next(batches)
            weight = None if images.weight is None else images.weight[rows]
            arrays = (images.pixels(rows), label[rows], group[rows], weight)
            given = (loss, optimizer, generator, blueprint.classifier)
            value = train_step(network, arrays, *given, partial(mixing, rows))
            finite &= value.isfinite()
            done += 1
        if not finite:
            raise StageError(
                f"the classifier's loss was not finite before step {stop} (learning rate "
                f"{phase.learning_rate:g}); expected a finite loss. Fix: lower the learning rate"
            )
        yield stop


def train_step(
    network: Network,
    batch: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray | None],
    loss: Loss,
    optimizer: AdamW,
    generator: torch.Generator,
    classifier: ClassifierConfig,
    mixed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda pixels, label: (
        pixels,
        label,
    ),
) -> Tensor:
    """One optimizer step; returns the detached loss, without waiting for it.

    Parameters
    ----------
    batch : pixels [B, 3, H, W], label [B], group [B], weight [B] of the images' losses or None.
    mixed : what is made of the augmented pixels and the labels, see `mixing.Mixing`.
    """
    pixels, label, group, weight = (
        None if part is None else torch.from_numpy(part).to(network.device) for part in batch
    )
    assert pixels is not None and label is not None and group is not None
    seen = augmented(pixels, generator, classifier.flip, classifier.crop_padding)
    seen, target = mixed(seen, label)
    features, logits = network(seen)
    value = loss(logits, features, target, group, weight)
    optimizer.step(value)
    return value.detach()


def seed_of(run_seed: int, index: int) -> int:
    """The seed of the `index`-th repetition in a run."""
    return int(np.random.SeedSequence([run_seed, index]).generate_state(1)[0])


def _loss(phase: Phase, groups: int) -> Loss:
    if phase.dro_step_size > 0:
        robust = GroupDRO(groups, phase.dro_step_size)
        return lambda logits, features, label, group, weight: robust(logits, label, group)

    def mixed(
        logits: Tensor, features: Tensor, label: Tensor, group: Tensor, weight: Tensor | None
    ) -> Tensor:
        if weight is None:
            return mixed_loss(logits, features, label, phase.beta, phase.temperature)
        return (weight * F.cross_entropy(logits.float(), label, reduction="none")).mean()

    return mixed
