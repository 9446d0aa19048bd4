"""The numbers that the page's script draws interactive plots from, in place of the pictures.

A value is JSON-able; `page.js` has a function of each name. Without scripts the pictures stay.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raysynth.evaluation.kinds import OURS
from raysynth.report.content import Content
from raysynth.report.gallery import Gallery
from raysynth.report.looks import BINS, MOST_GROUPS, scores_of
from raysynth.report.searched import VALIDATION, parameters, stopped

DIGITS = 5


def charts(content: Content, gallery: Gallery | None) -> dict[str, Any]:
    """Name of a plot -> its numbers."""
    found: dict[str, Any] = {}
    if content.methods:
        found["methods"] = _methods(content)
    if not content.trials.empty and parameters(content):
        found["search"] = found["parallel"] = _trials(content)
    if gallery is not None and not gallery.made.empty and content.groups.count <= MOST_GROUPS:
        found["scores"] = _scores(content, gallery)
    return found


def _methods(content: Content) -> dict[str, Any]:
    """WGA and AGA in percent: means, seeds and intervals."""
    return {
        "names": [method.title for method in content.methods],
        "ours": [method.name == OURS for method in content.methods],
        **{
            key: [
                {
                    "mean": _percent(spread.mean),
                    "seeds": [_percent(seed) for seed in spread.seeds],
                    "interval": [_percent(bound) for bound in method.interval[key]],
                }
                for method in content.methods
                for spread in [getattr(method, key)]
            ]
            for key in ("wga", "aga")
        },
    }


def _trials(content: Content) -> dict[str, Any]:
    """A row per trial: values of what was searched, validation WGA in percent, stopped or not."""
    trials, names = content.trials, parameters(content)
    columns = [trials[name].astype(float) for name in names]
    return {
        "names": [name.replace("_", " ") for name in names],
        "log": [bool(c.min() > 0 and c.max() > 10 * c.min()) for c in columns],
        "values": [[_rounded(c.iloc[row]) for c in columns] for row in range(len(trials))],
        "wga": [_percent(value) for value in trials[VALIDATION]],
        "ratio": [_rounded(value) for value in trials["ratio"]],
        "stopped": [bool(value) for value in stopped(trials)],
    }


def _scores(content: Content, gallery: Gallery) -> dict[str, Any]:
    """Images by score, counted in bins of one width for all groups."""
    score = gallery.made["score"]
    edges = np.linspace(score.min(), score.max() + 1e-6, BINS + 1)
    return {
        "names": content.groups.names,
        "edges": [_rounded(edge) for edge in edges],
        "counts": [
            {
                kind: np.histogram(values, edges)[0].tolist()
                for kind, values in scores_of(gallery, g).items()
            }
            for g in range(content.groups.count)
        ],
    }


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else round(100 * float(share), 2)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
