"""Ray Tune over the synthetic ratio and the hyperparameters: space, trial, stage, display."""

from raysynth.search.stage import run_search

__all__ = ["run_search"]
