"""The final classifiers, whose predictions of test are asked for once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from raysynth.cluster.tasks import on_worker
from raysynth.models.threads import use_threads
from raysynth.training.data import load_real
from raysynth.training.units import Units, load_unit


@dataclass(frozen=True)
class Final:
    """One seed of a method's final classifier: a unit's record and which of its heads."""

    method: str
    record: dict[str, Any]
    head: str

    @property
    def seed(self) -> int:
        """Index of the seed."""
        return int(self.record["plan"]["seed"])

    @property
    def step(self) -> int:
        """Optimizer steps of the snapshot that validation chose."""
        return int(self.record["best"][self.head]["step"])

    @property
    def validation(self) -> dict[str, Any]:
        """Its metrics on validation."""
        return self.record["best"][self.head]["validation"]

    @property
    def tuned(self) -> dict[str, Any]:
        """What the head's own fit chose."""
        return self.record["best"][self.head]["tuned"]


def predict_test(units: Units, finals: Sequence[Final], real: str) -> list[NDArray[np.int64]]:
    """[M] predicted labels of the test images by every final classifier, in the tables' order.

    This and the controls are the only places where test images are read. The classifiers are dealt
    to the workers, which hold torch already and may have a GPU: the driver needs neither.
    """
    workers, task = units.resources.workers, on_worker(_predict, units.resources)
    shares = [finals[worker::workers] for worker in range(workers)]
    found = ray.get([task.remote(units, share, real) for share in shares if share])
    return [found[index % workers][index // workers] for index in range(len(finals))]


def _predict(units: Units, finals: Sequence[Final], real: str) -> list[NDArray[np.int64]]:
    use_threads(units.resources.cpus_per_worker)
    test = load_real(real, "test", units.size)
    return [load_unit(units, final.record, final.head).predict(test) for final in finals]
