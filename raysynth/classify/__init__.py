"""Classifiers: backbone, losses, training, references and controls, group metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysynth.classify.reference_stage import run_references
    from raysynth.classify.stage import run_classification

__all__ = ["run_classification", "run_references"]


def __getattr__(name: str) -> Any:
    # On demand (PEP 562): workers import this package for one training, not for the stages.
    if name == "run_classification":
        from raysynth.classify.stage import run_classification

        return run_classification
    if name == "run_references":
        from raysynth.classify.reference_stage import run_references

        return run_references
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
