"""What a selection rule is: which candidates may be kept, which come first, and how many.

And what a score is, that they are ordered by; and a quota: how many of these each group keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raysynth.registry import Registry
from raysynth.selection.settings import QUOTAS as QUOTA_PARTS
from raysynth.selection.settings import RULES as RULE_PARTS
from raysynth.selection.settings import SCORES as SCORE_PARTS
from raysynth.selection.settings import SelectionConfig

if TYPE_CHECKING:  # rules are named by configurations, which do not wait for it
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """All candidates: their score [N] and id [N]; `seed`: of the run."""

    score: NDArray[np.float32]
    ids: NDArray[Any]
    seed: int

    @cached_property
    def draw(self) -> NDArray[np.uint64]:
        """[N] a random number per image, a function of (run seed, id) alone."""
        import numpy as np

        texts = (f"select/{self.seed}/{name}" for name in self.ids)
        digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
        return np.frombuffer(b"".join(digests), np.uint64)


def best_first(scored: Scored) -> NDArray[Any]:
    """[N] the highest scores first."""
    return -scored.score


def all_may(scored: Scored, config: SelectionConfig) -> NDArray[np.bool_]:
    """[N] nobody is excluded."""
    import numpy as np

    return np.ones(len(scored.score), bool)


def none_left(name: str, best: float, config: SelectionConfig) -> str:
    """Why a rule keeps nothing of the group `name`, whose best score is `best`; and what to do."""
    return (
        f"selection.rule={config.rule}: no candidate of group {name} may be kept; expected one at "
        "least. Fix: selection.rule=quantile"
    )


@dataclass(frozen=True)
class Rule:
    """Who is kept of the candidates that are no copies; the `PART` of a file in `rules/`.

    `said`: who is kept, as a sentence's end. `order`: [N] the smallest first; equal ones by id.
    `may`: [N] who could be kept at all. `share`: of those, in each group. `none`: what is said
    where nobody of a group may. `threshold`: it reads `selection.threshold`.
    """

    title: str
    source: str
    said: Callable[[SelectionConfig], str]
    order: Callable[[Scored], NDArray[Any]] = best_first
    may: Callable[[Scored, SelectionConfig], NDArray[np.bool_]] = all_may
    share: Callable[[SelectionConfig], float] = lambda config: 1.0
    none: Callable[[str, float, SelectionConfig], str] = none_left
    threshold: bool = False


@dataclass(frozen=True)
class Score:
    """What candidates are ordered by; the `PART` of a file in `scores/`.

    `said`: what it is called in a sentence. `columns`: of the synthetic table, numbers that it is
    made of. `of`: these columns, [N] each -> [N], the higher the better. `cosine`: it is one, so
    that `selection.threshold` means something.
    """

    title: str
    source: str
    said: str
    columns: tuple[str, ...]
    of: Callable[[Mapping[str, NDArray[Any]], SelectionConfig], NDArray[Any]]
    cosine: bool = False


@dataclass(frozen=True)
class Quota:
    """How many images each group keeps; the `PART` of a file in `quotas/`.

    `sizes`: images that each group could keep by the rule [G] -> images that it keeps [G], one at
    least and no more than these.
    """

    title: str
    source: str
    sizes: Callable[[Sequence[int]], Sequence[int]]


RULES: Registry[Rule] = RULE_PARTS
SCORES: Registry[Score] = SCORE_PARTS
QUOTAS: Registry[Quota] = QUOTA_PARTS
