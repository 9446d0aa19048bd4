"""A trained method's classifier as a folder with its card: what a run ships, or one exports."""

from __future__ import annotations

import tempfile
from pathlib import Path

from raysynth.classify.card import Origin, model_card
from raysynth.cluster.settings import ResourcesConfig
from raysynth.evaluation.kinds import KINDS
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.models.threads import use_threads
from raysynth.networks.build import blueprint_of
from raysynth.references.stage import reference_units
from raysynth.storage.files import put_folder
from raysynth.training.units import Units, load_unit


def own_units(config: Sections, work: str, groups: Groups, size: int) -> Units:
    """The trainings of raysynth's own row and of mixtures, below the classification's folder.

    `size`: side of the images, pixels.
    """
    return Units(f"{work}/units", blueprint_of(config), config[ResourcesConfig], groups, size)


def units_of(
    kind: str, config: Sections, references: str, work: str, groups: Groups, size: int
) -> Units:
    """The trainings among which those of a kind of `KINDS` are.

    `references`, `work`: folders or URIs of the stages of references and classification.
    """
    if KINDS[kind].of_references:
        return reference_units(config, references, groups, size)
    return own_units(config, work, groups, size)


def ship(units: Units, origin: Origin, folder: str, onnx: bool = False) -> None:
    """Save a classifier with its card to a folder or URI, which is made; `onnx`: in ONNX too."""
    use_threads(units.resources.cpus_per_worker)
    network = load_unit(units, origin.final.record, origin.final.head)
    with tempfile.TemporaryDirectory() as local:
        network.save_pretrained(local)
        if onnx:
            from raysynth.networks.onnx import write_onnx

            write_onnx(network, local)
        card = model_card(origin, network.own, onnx)
        (Path(local) / "README.md").write_text(card, encoding="utf-8")
        put_folder(local, folder)
