"""Classifiers: backbone, losses, two-stage training, real-only references, group metrics."""

from raysynth.classify.stage import run_classification

__all__ = ["run_classification"]
