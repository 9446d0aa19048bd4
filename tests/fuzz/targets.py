"""All that takes input from outside, and how often each is tried."""

from __future__ import annotations

from tests.fuzz import configuration, images, models, readers, stored
from tests.fuzz.harness import Batch, Target

TARGETS: list[Target] = [
    *configuration.TARGETS,
    *readers.TARGETS,
    *images.TARGETS,
    *stored.TARGETS,
    *models.TARGETS,
]


def plan(inputs: int, size: int, only: list[str] | None = None, first: int = 0) -> list[Batch]:
    """Batches of at most `size` inputs: `inputs` times its share for each target, in turns."""
    found = []
    for target in TARGETS:
        if only and not any(word in target.name for word in only):
            continue
        left, number = max(1, round(inputs * target.share)), first
        while left > 0:
            found.append(Batch(target, number, min(size, left)))
            left, number = left - size, number + 1
    return sorted(found, key=lambda batch: batch.number)
