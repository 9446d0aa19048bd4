"""Classifiers: backbone, losses, two-stage training, real-only references, group metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysynth.classify.stage import run_classification

__all__ = ["run_classification"]


def __getattr__(name: str) -> Any:
    # On demand (PEP 562): workers import this package for one training, not for the stage.
    if name != "run_classification":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raysynth.classify.stage import run_classification

    return run_classification
