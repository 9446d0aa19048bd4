"""Any trained method of a finished run as a folder with its card; nothing is trained, no Ray runs.

Weights come from the trainings that the stages keep.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from raysynth.classify.card import Origin
from raysynth.classify.ship import ship, units_of
from raysynth.config.config import Config
from raysynth.errors import ConfigError
from raysynth.evaluation.kept import final_of
from raysynth.evaluation.results import Truth, read_truth
from raysynth.evaluation.shipping import candidates
from raysynth.finished import LAST, Finished, read_finished, require_empty
from raysynth.networks.onnx import check_onnx
from raysynth.references.titles import title_of
from raysynth.storage import tables
from raysynth.terminal import clipped, masked, shown
from raysynth.training.units import Units

ALSO = ("images", "adapters")
"""What the command exports besides methods."""


def export(
    config: Config, method: str, folder: str, seed: int | None = None, onnx: bool = False
) -> str:
    """Save a trained method's classifier to a new or empty folder or URI; says what was saved.

    Parameters
    ----------
    config : the run's, or its name and storage only.
    method : a row of the run's table that is trained: a reference, a mixture, or raysynth.
    seed : index of the training seed; None: the one of the best validation score.
    onnx : whether it is saved in ONNX too.

    Raises
    ------
    ConfigError
        No such method or seed, no finished run of these settings, a folder that is not empty, or no
        package that writes ONNX.
    DataError
        The training's weights are not there any more.
    """
    if onnx:
        check_onnx()
    require_empty(folder)
    run = read_finished(config)
    row = _row(run.methods, method)
    seed = _seed(run.methods, method, seed)
    truth, units = _truth(run), _units(run, row["kind"])
    final = final_of(units.folder, method, row, seed)
    ship(
        units,
        Origin(run.config, truth.groups, truth.counts, run.methods, run.shipped, final),
        folder,
        onnx,
    )
    wga = row["validation"]["wga"]["seeds"][seed]
    return f"{title_of(method)}, seed {seed}, validation WGA {100 * wga:.1f} %: {masked(folder)}"


def _row(methods: Mapping[str, Mapping[str, Any]], method: str) -> Mapping[str, Any]:
    """The row of a trained method; ConfigError for others, with the nearest name."""
    known = candidates(methods)
    if method in known:
        return known[method].row
    told = f"expected one of {', '.join(known)}; or {' or '.join(ALSO)}"
    if method in methods:
        raise ConfigError(
            f"METHOD: {method} is measured only, as controls are, and has no network to export; "
            f"{told}. Fix: one of these"
        )
    close = difflib.get_close_matches(method, [*known, *ALSO], 1)
    hint = f"Did you mean {close[0]!r}?" if close else "Fix: one of these"
    raise ConfigError(f"METHOD: got {clipped(shown(method))!r}, {told}. {hint}")


def _seed(methods: Mapping[str, Mapping[str, Any]], method: str, seed: int | None) -> int:
    """The seed that was asked for, or the one that validation likes best."""
    candidate = candidates(methods)[method]
    if seed is None:
        return candidate.best_seed
    if not 0 <= seed < len(candidate.wga):
        has = ", ".join(f"{i}: {100 * wga:.1f} %" for i, wga in enumerate(candidate.wga))
        raise ConfigError(
            f"--seed: got {seed}; {method} has seeds of validation WGA {has}. Fix: one of these"
        )
    return seed


def _truth(run: Finished) -> Truth:
    """What is true of the test images; no pixel is read."""
    real = run.folders["ingest"]
    train = tables.read_table(real, ["group"], tables.split_files(real, "train"))["group"]
    counts = np.bincount(train.to_numpy(), minlength=run.groups.count)
    return read_truth(real, counts, run.groups)


def _units(run: Finished, kind: str) -> Units:
    """The trainings of a kind's methods, to be loaded on this machine's CPU."""
    size = run.config.classifier.image_size or tables.stored_side(run.folders["ingest"])
    where = (run.folders["references"], run.folders[LAST])
    units = units_of(kind, run.config, *where, run.groups, size)
    base = units.blueprint.base.model_copy(update={"device": "cpu"})
    return replace(units, blueprint=replace(units.blueprint, base=base))
