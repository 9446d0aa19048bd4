"""What a run ships, with its words: decided now, or read from the results of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysynth.evaluation.shipping import Methods, in_words, shipped, shipped_before
from raysynth.references.titles import title_of


def verdict(methods: Methods, images: Mapping[str, int]) -> dict[str, Any]:
    """What the rule ships of these rows, and its `words`; `images`: of validation, per group."""
    found = shipped(methods, images)
    assert found is not None  # raysynth's own row is among them
    return found | {"words": in_words(found, title_of, methods)}


def verdict_of(
    results: Mapping[str, Any], images: Mapping[str, int] | None = None
) -> dict[str, Any] | None:
    """The same of a finished run, by its results.json.

    Those of earlier versions do not say it: they always shipped raysynth's own. None: nothing is
    measured.
    """
    if found := results.get("shipped"):
        return dict(found)
    methods = results.get("methods", {})
    before = shipped_before(methods, images)
    return before and before | {"words": in_words(before, title_of, methods)}
