"""The final classifiers: measured on test, once; and the model that is shipped."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from raysynth.classify.card import model_card
from raysynth.config.config import Config
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import GroupMetrics
from raysynth.models.device import use_threads
from raysynth.storage.files import make_folder, open_storage, remove
from raysynth.training.data import load_real
from raysynth.training.units import load_unit


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


def predict_test(
    finals: Sequence[Final], config: Config, real: str, size: int, groups: Groups, units: str
) -> list[NDArray[np.int64]]:
    """[M] predicted labels of the test images by every final classifier, in the tables' order.

    This and the controls are the only places where test images are read. The classifiers are dealt
    to the workers, which hold torch already and may have a GPU: the driver needs neither.
    """
    resources = config.resources
    task = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(
        _predict
    )
    shares = [finals[worker :: resources.workers] for worker in range(resources.workers)]
    found = ray.get(
        [task.remote(share, config, real, size, groups, units) for share in shares if share]
    )
    return [
        found[index % resources.workers][index // resources.workers] for index in range(len(finals))
    ]


def _predict(
    finals: Sequence[Final], config: Config, real: str, size: int, groups: Groups, units: str
) -> list[NDArray[np.int64]]:
    use_threads(config.resources.cpus_per_worker)
    test = load_real(real, "test", size)
    return [
        load_unit(units, final.record, final.head, config, groups, size).predict(test)
        for final in finals
    ]


def ship(
    final: Final,
    config: Config,
    size: int,
    groups: Groups,
    counts: NDArray[np.int64],
    units: str,
    work: str,
    metrics: Sequence[dict[str, Any]],
    preference: str = "",
) -> None:
    """Save a classifier with its card to `work`/model.

    counts [G]: real training images. `metrics`: test metrics of this seed first, then of all.
    `preference`: what validation prefers to it, in words.
    """
    use_threads(config.resources.cpus_per_worker)
    network = load_unit(units, final.record, final.head, config, groups, size)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        plan = final.record["plan"]
        card = model_card(
            config, groups, counts, plan, metrics[0], metrics[1:], network.own, preference
        )
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        remove(f"{work}/model")
        make_folder(f"{work}/model")
        storage, target = open_storage(f"{work}/model")
        for file in sorted(Path(folder).iterdir()):
            storage.put_file(str(file), f"{target}/{file.name}")


def shipped_index(finals: Sequence[Final]) -> int:
    """Which seed is shipped: the one of the best validation score; test decides nothing."""
    scores = [GroupMetrics.from_dict(final.validation).score for final in finals]
    return int(np.argmax(scores))
