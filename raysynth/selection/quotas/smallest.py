"""As many in every group as the smallest could keep: stage 1 trains on a group-balanced set."""

from __future__ import annotations

from raysynth.selection.rule import Quota

PART = Quota(
    "As many as the smallest",
    "ours",
    lambda could: [min(could)] * len(could),
)
