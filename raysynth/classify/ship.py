"""The classifier that is shipped: the seed that validation likes best, with its card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from raysynth.evaluation.final import Final
from raysynth.models.device import use_threads
from raysynth.storage.files import put_folder, remove
from raysynth.training.units import Units, load_unit


def ship(units: Units, final: Final, card: Callable[[bool], str], work: str) -> None:
    """Save a classifier with its card to `work`/model.

    `card`: its text, told whether the model is raysynth's own, so that loading it takes an import.
    """
    use_threads(units.resources.cpus_per_worker)
    network = load_unit(units, final.record, final.head)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        (Path(folder) / "README.md").write_text(card(network.own), encoding="utf-8")
        remove(f"{work}/model")
        put_folder(folder, f"{work}/model")
