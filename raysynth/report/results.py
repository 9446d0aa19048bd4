"""results.json: the numbers of a run, for programs."""

from __future__ import annotations

from typing import Any

from raysynth.report.content import FIRST, Content

SELECTION = ("threshold", "copy_threshold", "copies", "kept_per_cluster")
"""Facts of the selection that are numbers of a run."""


def results(content: Content) -> dict[str, Any]:
    """The run's numbers, JSON-able.

    `methods.<name>.{wga,aga,weighted,equalized_odds,demographic_parity,groups}` are `{mean, std,
    seeds}` on test, shares of 1; `interval` bounds WGA and AGA (95 %, over test images); `groups`
    holds one number per group, in the order of the key `groups`; a measure that does not exist is
    null. `preferred` is what validation prefers to the shipped classifier, or null (see
    `classify.preference.preferred`), `preference` says so. `left_out`: images that could not be
    read, the first by name, and what the reader left out. `timings` are seconds.
    """
    groups, config = content.groups, content.config
    names = groups.names
    return {
        "dataset": config.dataset.name,
        "severity": config.dataset.severity,
        "generator": config.generator,
        "config_digest": config.digest(),
        "groups": names,
        "counts": {
            **{split: counts.tolist() for split, counts in content.counts.items()},
            "candidates": content.candidates.tolist(),
            "copies": content.copies.tolist(),
            "kept": content.kept.tolist(),
        },
        "clusters": {
            names[g]: [size for (group, _), size in content.clusters.items() if group == g]
            for g in range(groups.count)
        },
        "selection": {
            key: content.selection[key]
            for key in (*SELECTION, *({"validation_in_training"} & content.selection.keys()))
        },
        "selection_rule": content.results.get("selection_rule", ""),
        "preferred": content.preferred,
        "preference": content.preference,
        "left_out": {
            "skipped": len(content.skipped),
            "first": content.skipped[:FIRST],
            "remarks": content.remarks,
        },
        "methods": content.results.get("methods", {}),
        "search": {"trials": len(content.trials), "best": content.best},
        "timings": content.timings,
    }
