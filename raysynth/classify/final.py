"""The final classifiers: measured on test, once; the results file; the model that is shipped."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from raysynth.classify.card import model_card
from raysynth.classify.data import load_real
from raysynth.classify.metrics import GroupMetrics, group_metrics, over_seeds
from raysynth.classify.units import load_unit
from raysynth.config import Config
from raysynth.groups import Groups
from raysynth.models.device import use_threads


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


def measure_and_ship(
    finals: Sequence[Final],
    config: Config,
    real: str,
    size: int,
    groups: Groups,
    units: str,
    work: str,
    ours: str,
) -> list[dict[str, Any]]:
    """Test metrics of every final classifier; the best seed of `ours` is saved to `work`/model.

    This is the only place where the test split is read. Which seed is shipped is decided by
    validation.
    """
    use_threads(config.resources.cpus_per_worker)
    test = load_real(real, "test", size)
    counts = load_real(real, "train", size).counts(groups.count)
    measured = []
    for final in finals:
        network = load_unit(units, final.record, final.head, config, groups, size)
        metrics = group_metrics(network.predict(test), test.label, test.group, counts)
        measured.append(metrics.to_dict(groups))
    shipped = shipped_index(finals, ours)
    final = finals[shipped]
    network = load_unit(units, final.record, final.head, config, groups, size)
    seeds = [m for f, m in zip(finals, measured, strict=True) if f.method == ours]
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        card = model_card(config, groups, counts, final.record["plan"], measured[shipped], seeds)
        (Path(folder) / "README.md").write_text(card)
        filesystem, target = fsspec.core.url_to_fs(f"{work}/model")
        if filesystem.exists(target):
            filesystem.rm(target, recursive=True)
        filesystem.makedirs(target, exist_ok=True)
        for file in sorted(Path(folder).iterdir()):
            filesystem.put_file(str(file), f"{target}/{file.name}")
    return measured


def shipped_index(finals: Sequence[Final], ours: str) -> int:
    """Which final classifier is shipped: of `ours`, the seed of the best validation score."""
    candidates = [i for i, final in enumerate(finals) if final.method == ours]
    return max(candidates, key=lambda i: GroupMetrics.from_dict(finals[i].validation).score)


def final_report(
    finals: Sequence[Final],
    measured: Sequence[dict[str, Any]],
    tried: Sequence[dict[str, Any]],
    best: dict[str, Any],
) -> dict[str, Any]:
    """results.json: per method, `{mean, std, seeds}` on test and validation, and what was chosen.

    `measured`: test metrics of `finals`; `tried`: the references' tuning; `best`: the search's.
    """
    methods = {}
    for name in dict.fromkeys(final.method for final in finals):
        mine = [i for i, final in enumerate(finals) if final.method == name]
        plan = finals[mine[0]].record["plan"]
        methods[name] = {
            **over_seeds([measured[i] for i in mine]),
            "validation": over_seeds([finals[i].validation for i in mine]),
            "chosen": {
                **{k: v for k, v in plan.items() if k not in ("seed", "heads", "evaluations")},
                "head": finals[mine[0]].head,
                "stopped_at": [finals[i].step for i in mine],
            },
        }
    return {"methods": methods, "tuning": list(tried), "search": best}
