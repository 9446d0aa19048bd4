"""Rebalancing: which images a group's next ones are bred from; decisions alone, no image is made.

After Jain et al. 2023 (their code): images that a judge takes for the target are founders; each
accepted one has children, which are tried if they are farther from the founder than their parent,
and accepted if the judge says the target of them. No cross-over, no fitness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysynth.errors import StageError
from raysynth.groups.groups import Groups

LEAST_COSINE = 0.2
"""To the founder: where a lineage stops, as nothing of the founder is left."""
PATIENCE = 50
"""Founders that are expected among the images of a group by its share of its class's real images,
if none has come by then it is never drawn."""
FIRST = 8
"""Plain images per founder that are asked for at first, at most; then as many again each time."""
INHERITED = 0.5
"""Share of children that show what their parent does, where an estimate is asked for
(`benchmarks/neighbours.py --only rebalance`)."""


@dataclass(frozen=True)
class Start:
    """What an image begins at: the number of its founder, and of the children down to it."""

    path: tuple[int, ...]
    founder: int

    @property
    def told(self) -> str:
        """Its path as a column has it, `0-2-1`."""
        return "-".join(str(number) for number in self.path)

    def children(self, count: int) -> list[Start]:
        """Those that it may have."""
        return [Start((*self.path, number), self.founder) for number in range(count)]


def births(path: str) -> tuple[int, ...]:
    """The numbers of the children that a path `0-2-1` names; none of an empty one."""
    return tuple(int(number) for number in path.split("-")) if path else ()


@dataclass(frozen=True)
class Seen(Start):
    """What became of one."""

    drawn: bool
    """Founders are, and children farther from their founder than their parent (`farther`)."""
    judged: float
    """Probability of the target, by the judge; 0: not drawn."""
    accepted: bool
    """Whether the target is the likeliest (`targets`)."""


@dataclass(frozen=True)
class Wanted:
    """What is bred for: one model's images of a group."""

    what: str
    """The group's name, in errors."""
    quota: int
    """Images that are to be accepted."""
    share: float
    """The group's of its class's real images, above 0: how often the target is hoped for."""
    founders: int
    children: int


def shares_of(counts: np.ndarray, groups: Groups) -> tuple[float, ...]:
    """[G] groups' shares of their classes' training images, [G], as if each had one at least."""
    known = np.maximum(np.asarray(counts), 1).reshape(len(groups.label_names), -1)
    return tuple((known / known.sum(axis=1, keepdims=True)).ravel().tolist())


def targets(likely: np.ndarray, group: np.ndarray, shares: np.ndarray) -> NDArray[np.int64]:
    """[B] the likeliest attributes, of [B, A] probabilities that a judge gives the images.

    With the shares of their class as prior (ours; theirs is the plain argmax): where one image in a
    hundred is the target, a judge that is wrong about one in twenty would find its own mistakes.

    Parameters
    ----------
    group : [B] groups of the images; shares : [G], see `shares_of`.
    """
    width = likely.shape[1]
    prior = shares.reshape(-1, width)[np.asarray(group) // width]
    found: NDArray[np.int64] = (likely * prior).argmax(axis=1)
    return found


def farther(child: float, parent: float) -> bool:
    """Whether a child is drawn, by the cosines to the founder of its noise and its parent's."""
    return LEAST_COSINE <= child < parent


def evolve(wanted: Wanted, seen: Sequence[Seen]) -> list[Start]:
    """What is tried next, of all that was seen so far, in order; empty: enough are accepted.

    Founders first, the model's plain images in order of their number, every accepted one of which
    is a founder; then children, one generation of all lineages after the other, no more than the
    quota is likely to take; again plain images, where all lineages have stopped.

    Raises
    ------
    StageError
        Among `PATIENCE` / `share` plain images there is no (further) founder.
    """
    accepted = [one for one in seen if one.accepted]
    missing = wanted.quota - len(accepted)
    if missing <= 0:
        return []
    known = {(one.founder, one.path) for one in seen}
    born = (child for one in accepted for child in one.children(wanted.children))
    queue = sorted(
        (child for child in born if (child.founder, child.path) not in known),
        key=lambda child: (len(child.path), child.path, child.founder),
    )
    founders = [one.founder for one in accepted if not one.path]
    plain = sum(not one.path for one in seen)
    left = _patience(wanted) - (plain - 1 - max(founders, default=-1))
    short = wanted.founders - len(founders)
    if queue and (short <= 0 or left <= 0):
        tried = [one.accepted for one in seen if one.path]
        return queue[: math.ceil(missing * (len(tried) + 1) / (sum(tried) + 1))]
    if left <= 0:
        raise StageError(_never(wanted, len(accepted), len(founders), plain))
    asked = min(short if short > 0 else wanted.founders, missing)
    rate = (len(founders) + 1) / (plain + 1 / wanted.share)
    most = max(plain, FIRST * wanted.founders)
    return [Start((), plain + n) for n in range(min(math.ceil(asked / rate), most, left))]


def bred_per_image(wanted: Wanted) -> float:
    """Images drawn for one that is accepted, expected: founders by chance, then children.

    As if the model drew the group as often as its share, and `INHERITED` of the children were
    accepted; the accepted ones are drawn once more, to be written.
    """
    founders = min(wanted.founders, wanted.quota)
    drawn = founders / wanted.share + (wanted.quota - founders) / INHERITED
    return 1 + drawn / wanted.quota


def _patience(wanted: Wanted) -> int:
    return math.ceil(PATIENCE / wanted.share)


def _never(wanted: Wanted, accepted: int, founders: int, plain: int) -> str:
    return (
        f"synthesis.rebalance: of {plain} images of {wanted.what} the judge takes {founders} for "
        f"it, none of the last {_patience(wanted)}, {PATIENCE} times as many as should show one by "
        f"its share of the class, {wanted.share:.3g}; {accepted} of {wanted.quota} are accepted. "
        "The target is never drawn. Fix: a lower severity (more images of the group), or name the "
        "attribute: {attribute} in prompts.template"
    )
