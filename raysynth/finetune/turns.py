"""The turns of a step: adapters whose images have one size are one batch, sizes come in turn.

Where all adapters are at one size for a whole stretch of steps, which is always so unless images
are kept in their own proportions (`sized`), there is one turn, laid out once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raysynth.finetune.learner import Learner
from raysynth.finetune.phase import Phase, Row, lay_out


@dataclass(frozen=True)
class Turn:
    """What some adapters do of a step."""

    phase: Phase
    learners: tuple[Learner, ...]
    places: Tensor
    """[P] int64 of these among all that train."""
    slots: Tensor
    """[P] int64 their slots."""
    first: int
    """Number of the step's first micro-batch in the phase."""


def turns_of(
    learners: Sequence[Learner],
    steps: int,
    accumulation: int,
    device: torch.device,
    before: Phase | None = None,
) -> Iterator[list[Turn]]:
    """The turns of each of the next steps.

    Parameters
    ----------
    steps : until the next event of any learner.
    before : the phase that ended; its images are not gathered again where the adapters stay.
    """
    done = 0
    while done < steps:
        at = [(learner.done + done) * accumulation for learner in learners]
        runs = (learner.sized.run(micro) for learner, micro in zip(learners, at, strict=True))
        length = min(steps - done, min(runs) // accumulation)
        laid = [
            _laid(learners, places, at, length * accumulation, device, before, length == steps)
            for places in _by_size(learners, at)
        ]
        for number in range(length):
            yield [replace(turn, first=number * accumulation) for turn in laid]
        done += length


def _by_size(learners: Sequence[Learner], at: Sequence[int]) -> list[tuple[int, ...]]:
    """The places of the learners whose next images have one size, for each size."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place, (learner, micro) in enumerate(zip(learners, at, strict=True)):
        material, _ = learner.sized.at(micro)
        found.setdefault(tuple(material.moments.shape[2:]), []).append(place)
    return [tuple(places) for places in found.values()]


def _laid(
    learners: Sequence[Learner],
    places: tuple[int, ...],
    at: Sequence[int],
    micro_batches: int,
    device: torch.device,
    before: Phase | None,
    whole: bool,
) -> Turn:
    """The first turn of some learners; `whole`: their phase is the whole stretch."""
    own = tuple(learners[place] for place in places)
    rows = []
    for learner, place in zip(own, places, strict=True):
        material, first = learner.sized.at(at[place])
        row = Row(learner.job, material, at[place], first)
        rows.append(row if whole else row.narrowed(micro_batches))
    phase = lay_out(rows, micro_batches, before if whole else None)
    slots = torch.tensor([learner.slot for learner in own], device=device)
    return Turn(phase, own, torch.tensor(places, device=device), slots, 0)


def held_out_turns(
    learners: Sequence[Learner],
) -> Iterator[tuple[Phase, list[int], list[float]]]:
    """Phases of one micro-batch of held-out images, one for each of their sizes.

    With the places of the learners whose images they are, and these' shares of their learner's.
    """
    found: dict[tuple[int, ...], list[tuple[int, Row, float]]] = {}
    for place, learner in enumerate(learners):
        images = sum(part.entries.shape[1] for part in learner.held_out)
        for number, part in enumerate(learner.held_out):
            row, share = Row(learner.job, part, number, 0), part.entries.shape[1] / images
            found.setdefault(tuple(part.moments.shape[2:]), []).append((place, row, share))
    for each in found.values():
        places, rows, shares = (list(own) for own in zip(*each, strict=True))
        yield lay_out(rows, 1), places, shares
