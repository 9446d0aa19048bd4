"""The Hub's metadata of a classifier's card: what it is, and what it was measured at, by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from raysynth.datasets.settings import LAYOUTS, DatasetConfig

TASK = "image-classification"
METRICS = {
    "wga": ("worst-group-accuracy", "WGA: accuracy of the worst group"),
    "aga": ("average-group-accuracy", "AGA: mean accuracy over groups"),
    "weighted": ("weighted-accuracy", "accuracy weighted by the groups' training share"),
}
"""Measure -> the Hub's type and name of it."""
SPLITS = ("validation", "test")


def hub_header(
    name: str,
    dataset: DatasetConfig,
    row: Mapping[str, Any],
    seed: int,
    tags: Sequence[str],
    base: str | None,
) -> ModelCardData:
    """The metadata, with a `model-index` of every measure on both splits, shares of 1.

    Parameters
    ----------
    name : of the model; row : its method's, as in results.json; seed : index of its training seed.
    base : the model that it was fine-tuned from, a hub id; None: none of the hub's.
    """
    measured = dict(zip(SPLITS, (row.get("validation", {}), row), strict=True))
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset.name,
            dataset_name=data_name(dataset),
            dataset_split=split,
            metric_type=kind,
            metric_name=title,
            metric_value=measured[split][measure]["seeds"][seed],
        )
        for split in SPLITS
        for measure, (kind, title) in METRICS.items()
        if measure in measured[split]
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK,
        license="unknown",
        tags=list(tags),
        metrics=[kind for kind, _ in METRICS.values()],
        base_model=base,
        model_name=name,
        eval_results=results,
    )


def data_name(dataset: DatasetConfig) -> str:
    """What a data set is called: images of one's own by the last part of their folder or URI."""
    if not LAYOUTS[dataset.name].is_anybodys or not dataset.path:
        return dataset.name
    return PurePath(dataset.path.rstrip("/")).name or dataset.name
