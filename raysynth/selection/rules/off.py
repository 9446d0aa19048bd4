"""Everybody who is no copy; where another group has fewer, random ones."""

from __future__ import annotations

from raysynth.selection.rule import Rule

PART = Rule("All", "none", lambda config: "all", order=lambda scored: scored.draw)
