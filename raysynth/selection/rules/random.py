"""A random share of each group, whatever the scores: the paper's ablation."""

from __future__ import annotations

from raysynth.selection.rule import Rule

PART = Rule(
    "Random share",
    "Basu et al. 2026 (arXiv 2511.08711), ablation",
    lambda config: f"{100 * config.keep:g} % at random",
    order=lambda scored: scored.draw,
    share=lambda config: config.keep,
)
