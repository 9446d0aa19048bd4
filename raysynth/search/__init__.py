"""Ray Tune over the synthetic ratio and the hyperparameters: space, trial, stage, display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysynth.search.stage import run_search

__all__ = ["run_search"]


def __getattr__(name: str) -> Any:
    # On demand (PEP 562): a trial's process needs neither Optuna nor the stage.
    if name != "run_search":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raysynth.search.stage import run_search

    return run_search
