"""Images shown under one of their two words alone, and the four prompts that make up a cell.

A cell is a label with an attribute; its prompts say both, either alone, or nothing. What is asked
of a draw are the three that it is not trained under.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from raysynth.finetune.draws import dice_of
from raysynth.finetune.material import Material
from raysynth.finetune.partners import all_texts
from raysynth.finetune.term import Beginning
from raysynth.groups.groups import Groups
from raysynth.models.condition import Condition

BOTH, LABEL, ATTRIBUTE = range(3)
"""What is said of a draw."""
ACROSS, ONE, TWO = "across", "one", "two"
"""Names, below the term's, of a draw's other prompts: the one that says all that its own does not,
and the two that share a word with it, or nothing."""


@dataclass(frozen=True)
class Rows:
    """Where a job's prompts are among a material's texts, by the place of a group in `members`."""

    members: list[int]
    """Groups that the model speaks for; those with images first, as `Material.spoken` has them."""
    both: np.ndarray
    label: np.ndarray
    attribute: np.ndarray
    empty: int


def with_alone(
    material: Material, start: Beginning, name: str, share: float, others: bool
) -> Material:
    """The material with one-sided prompts, and the other three of every draw's cell in `also`.

    Draws without a prompt keep their own everywhere, and what other terms ask of a draw that says
    one word alone is its own prompt.

    Parameters
    ----------
    share : of the draws that have a prompt, shown under the label alone, and as many under the
        attribute alone.
    others : whether the word that such a draw does not say is any that its model speaks of; else
        its own image's. One that says both is of its own cell.
    """
    job, seed = start.job, start.seed
    texts, rows = _told(material, start)
    spoken = material.spoken.cpu().numpy()
    asked = spoken < rows.empty
    own = np.where(asked, spoken, 0)
    dice = dice_of(job, seed, name).random(spoken.shape)
    said = np.select([dice < share, dice < 2 * share], [LABEL, ATTRIBUTE], BOTH)
    cell = own
    if others:
        uniform = dice_of(job, seed, f"{name}/cell").random(spoken.shape)
        cell = _drawn(own, said, uniform, rows.members, start.groups)
    both, label, attribute = rows.both[cell], rows.label[cell], rows.attribute[cell]
    empty = np.full(spoken.shape, rows.empty)
    shown = np.where(asked, np.choose(said, [both, label, attribute]), spoken)
    prompts = {
        ACROSS: np.choose(said, [empty, attribute, label]),
        ONE: np.where(said == BOTH, label, both),
        TWO: np.where(said == BOTH, attribute, empty),
    }
    changed = torch.from_numpy(asked & (said != BOTH)).to(material.spoken.device)
    now = torch.from_numpy(shown).to(material.spoken.device)
    also = {other: torch.where(changed, now, row) for other, row in material.also.items()}
    for key, row in prompts.items():
        also[f"{name}/{key}"] = torch.from_numpy(np.where(asked, row, shown)).to(now.device)
    return replace(material, texts=texts, spoken=now, also=also)


def _told(material: Material, start: Beginning) -> tuple[Condition, Rows]:
    """The material's texts, and after them those that it lacks; where they are."""
    job = start.job
    texts, row_of = all_texts(material, job, start.base)
    members, both = list(row_of), np.array(list(row_of.values()))
    said = start.base.condition([job.alone[g][side] for side in (0, 1) for g in members])
    more = len(texts) + np.arange(len(members))
    rows = Rows(members, both, more, more + len(members), empty=len(job.prompts))
    return Condition.cat([texts, said]), rows


def _drawn(
    own: np.ndarray, said: np.ndarray, uniform: np.ndarray, members: list[int], groups: Groups
) -> np.ndarray:
    """Places in `members` of cells that have the word which is said, evenly drawn."""
    cell = own.copy()
    for side, of in ((LABEL, groups.label), (ATTRIBUTE, groups.attribute)):
        for place, group in enumerate(members):
            among = np.array([k for k, other in enumerate(members) if of(other) == of(group)])
            mine = (own == place) & (said == side)
            cell[mine] = among[(uniform[mine] * len(among)).astype(np.int64)]
    return cell
