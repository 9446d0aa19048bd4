"""The best share of each group, by `selection.score`: CLIP's, where nothing else is said."""

from __future__ import annotations

from raysynth.selection.rule import SCORES, Rule

PART = Rule(
    "Best share",
    "Basu et al. 2026 (arXiv 2511.08711): the top 75 %",
    lambda config: f"the best {100 * config.keep:g} % by {SCORES[config.score].said}",
    share=lambda config: config.keep,
)
