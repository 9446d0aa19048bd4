"""Models without a group: one that speaks for several is taught to forget one of them.

GUDA (Murata et al. 2026) for models that are told what to draw: under the forgotten group's prompt
the model learns what the frozen full one says under an anchor's, a group that shares its content;
under all other prompts it learns what the full one says there. No image of the group needs to be
left out of a training, so it takes a fraction of one. Trainings are those of `raysynth.finetune`,
with another loss: the models without each group are learnt in one batch, as adapters are.

Shapes: T micro-batches, b rows of one, B rows of all models, G groups, A anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysynth.adapters.banks import Bank, open_bank
from raysynth.adapters.record import LoraShape
from raysynth.finetune.draws import dice_of
from raysynth.finetune.engines import DTYPE_OF, precision_of
from raysynth.finetune.jobs import Job
from raysynth.finetune.material import Material
from raysynth.finetune.objective import Noised
from raysynth.finetune.packs import Pack
from raysynth.finetune.partners import all_texts
from raysynth.groups.groups import Groups
from raysynth.knobs import Section
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base
from raysynth.models.loading import round_weights
from raysynth.models.prediction import Predicted
from raysynth.models.settings import BaseConfigSection

ANCHOR, WEIGHT = "anchor", "weight"
"""What rows have besides: another prompt, and their share of the loss."""
SLOWER = 0.5
"""A rate of its own, as adapters want ten times that of full weights: at 1e-4 they forget nothing
in 60 steps (benchmarks/attribution.py)."""
UNBOUNDED = 1e9
"""Times that an image may be seen: what is learnt of it is no look of its own."""


def unlearners(jobs: Sequence[Job], steps: int, learning_rate: float | None) -> list[Job]:
    """A job `without-<group>` for every group that a model was trained on.

    Half of every batch is the group's images, half the others', where groups take turns.
    `learning_rate`: None: `SLOWER` times that of the model.
    """
    found = []
    for job in jobs:
        for group in sorted(job.prompts):
            few = 2 * job.groups.count(group) <= len(job.groups)
            others = tuple(g for g in sorted(job.prompts) if g != group)
            found.append(
                replace(
                    job,
                    name=f"without-{group}",
                    parent=job.name,
                    without=group,
                    conflicting=(group,) if few else others,
                    oversample=0.5,
                    max_passes=UNBOUNDED,
                    steps=steps,
                    batch=max(2, job.batch),
                    learning_rate=learning_rate or SLOWER * job.learning_rate,
                )
            )
    return found


def anchors_of(job: Job, group: int, groups: Groups) -> list[int]:
    """Groups that the model speaks for, of a group's label and another attribute."""
    spoken = sorted([*job.prompts, *job.unseen])
    return [g for g in spoken if g != group and groups.label(g) == groups.label(group)]


def anchor_shares(similar: np.ndarray, beta: float, uniform: float) -> np.ndarray:
    """[A] chances of anchors whose prompts' cosines with the forgotten one are [A].

    (1 - uniform) softmax(beta cos) + uniform / A, as in the code of Murata et al. 2026.
    """
    weights = np.exp(beta * (similar - similar.max()))
    shares: np.ndarray = (1 - uniform) * weights / weights.sum() + uniform / len(similar)
    return shares


def redirection(said: Predicted, wanted: Predicted) -> Tensor:
    """[B] mean squared distance of two predictions of the noise: each half of the loss.

    || e(x_t, c) - e_full(x_t, c') ||^2 of Murata et al. 2026, with c' the anchor's prompt for
    images of the forgotten group and the own one for others; whatever the base predicts.
    """
    return (said.noise - wanted.noise.detach()).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Redirect:
    """See `raysynth.finetune.objective.Objective`; `knobs` are those of `methods.guda`."""

    base: Base
    """Of the full models: family and schedule."""
    bank: Bank
    """The full models, frozen."""
    groups: Groups
    similar: np.ndarray
    """[G, G] cosines of the groups' prompts."""
    knobs: Any

    title = "Redirection"
    source = "Murata et al. 2026"
    Knobs = Section

    def passes(self, knobs: Section) -> int:
        """One; the full model only looks."""
        return 1

    def extra(
        self, material: Material, job: Job, base: Base, seed: int, knobs: Section
    ) -> Material:
        """The prompt that the full model is asked under, and the weight of every draw."""
        texts, row_of = all_texts(material, job, base)
        own, device = material.spoken.cpu().numpy(), material.spoken.device
        forget = own == row_of[job.without]
        anchors = anchors_of(job, job.without, self.groups)
        similar = self.similar[job.without, anchors]
        chances = anchor_shares(similar, self.knobs.beta, self.knobs.uniform)
        drawn = dice_of(job, seed, ANCHOR).choice(len(anchors), own.shape, p=chances)
        asked = np.where(forget, np.array([row_of[g] for g in anchors])[drawn], own)
        share = weights(forget, self.knobs.preserve)
        return replace(
            material,
            texts=texts,
            also={ANCHOR: torch.from_numpy(asked).to(device)},
            values={WEIGHT: torch.from_numpy(share).to(device)},
        )

    def losses(self, batch: Noised, denoise: Denoiser, knobs: Section) -> Tensor:
        """[B] weighted distances from what the full model says."""
        with torch.no_grad():
            wanted = self._full(batch)(batch.x, batch.timestep, batch.also[ANCHOR])
        return redirection(batch.predicted, wanted) * batch.values[WEIGHT]

    def _full(self, batch: Noised) -> Denoiser:
        """The full model of every row."""
        return Denoiser(self.base, self.bank.use([job.parent for job in batch.jobs], 1))


def weights(forget: np.ndarray, preserve: float) -> np.ndarray:
    """[T, b] float32 with which a mean over b rows is the loss: mean over forgotten images plus
    `preserve` times that over the others; `forget`: [T, b] bool, one of each kind at least."""
    rows = forget.shape[1]
    each = np.where(
        forget,
        rows / forget.sum(1, keepdims=True),
        preserve * rows / (~forget).sum(1, keepdims=True),
    )
    return each.astype(np.float32)


def full_models(base: BaseConfigSection, pack: Pack, names: Sequence[str]) -> tuple[Base, Bank]:
    """A frozen network of its own with the models that a pack's jobs go on from."""
    settings = pack.settings
    live = settings.text_encoder
    roles: tuple[Any, ...] = ("model", "scheduler", *(("text",) if live else ()))
    found = replace(load_base(base, roles), live=live)
    round_weights(found.network, found.dtype)
    return found, open_bank(found, pack.origin, names, pack.training, LoraShape.of(settings))


def redirected(pack: Pack, similar: Callable[[], np.ndarray], knobs: Any) -> Pack:
    """The pack with the loss; `similar`: [G, G] cosines, asked for where there is a choice."""
    models = tuple(sorted({job.parent for job in pack.jobs}))
    dtype = DTYPE_OF[precision_of(pack.settings, pack.base)]
    base, bank = full_models(pack.base.model_copy(update={"dtype": dtype}), pack, models)
    choice = any(len(anchors_of(job, job.without, pack.groups)) > 1 for job in pack.jobs)
    many = pack.groups.count
    cosines = similar() if choice else np.ones((many, many))
    return replace(pack, objective=Redirect(base, bank, pack.groups, cosines, knobs))
