"""results.json: the numbers of a run, for programs.

`data`: the data set's name, one's own folder's. `verdict`: whether synthesis helped (`helped`,
`did not help`, `cannot be told`), why and what to try next, in sentences.
`differences.<name>.{wga,aga}`: raysynth minus that method, `{mean, low, high}`
(`evaluation.paired`); nothing where the run kept no predictions.
`methods.<name>.{wga,aga,weighted,equalized_odds,demographic_parity,groups}` are `{mean, std,
seeds}` on test, shares of 1; `interval` bounds WGA and AGA (95 %, over test images); `groups`
holds one number per group, in the order of the key `groups` (`measured_groups`, where test is
measured in the data set's own groups and training is not grouped by these); a measure that
does not exist is null. `shipped` is the method whose classifier is shipped, its margin, and why
in `words`. `fidelity`, `audits` (by generator): facts of these stages; `unfaithful`: what was
done about images that do not show their label, in words, or nothing. `found`, where a grouping
method found the groups: what it says of them; `inferred`: in words, where those of test are
found too. `timings`: seconds; `spent`: by stage, `memory` and `gpu_memory` (bytes, peaks) and
`joules`, each where it could be read (`stages.spending`); `left_out`, `repeated`: images not
in the table, or there twice.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from raysynth.classify.hub_header import data_name
from raysynth.report.content import Content
from raysynth.report.tested import Tested
from raysynth.report.verdict import judge

SELECTION = (
    *("threshold", "copy_threshold", "copies", "kept_per_cluster"),
    *("leaks", "validation_in_training"),
)
"""Facts of the selection that are numbers of a run; the last two where there are any."""


def results(content: Content, tested: Tested | None = None) -> dict[str, Any]:
    """The run's numbers, JSON-able; the keys are those of this module's first lines."""
    config, measured = content.config, content.measured.groups
    return {
        "dataset": config.dataset.name,
        "data": data_name(config.dataset),
        "severity": config.dataset.severity,
        "generator": config.generator,
        "config_digest": config.digest(),
        "groups": content.groups.names,
        **({"measured_groups": measured.names} if content.is_regrouped else {}),
        **({"found": content.found} if content.found else {}),
        **({"inferred": content.inferred} if content.inferred else {}),
        "counts": _counts(content),
        **content.remarks,
        "clusters": _clusters(content),
        "selection": {key: content.selection[key] for key in SELECTION if key in content.selection},
        "selection_rule": content.results.get("selection_rule", ""),
        "shipped": content.shipped,
        "fidelity": content.fidelity,
        "unfaithful": content.unfaithful,
        **({"audits": content.audits} if content.audits else {}),
        **_compared(content, tested),
        "methods": content.results.get("methods", {}),
        "search": {"trials": len(content.trials), "best": content.best},
        "timings": content.timings,
        "spent": {name: spent.told for name, spent in content.spent.items()},
    }


def _clusters(content: Content) -> dict[str, list[int]]:
    """Training images of every cluster, by group."""
    return {
        name: [size for (group, _), size in content.clusters.items() if group == g]
        for g, name in enumerate(content.groups.names)
    }


def _compared(content: Content, tested: Tested | None) -> dict[str, Any]:
    """The verdict, and raysynth's difference to every other method."""
    differences = tested.differences if tested else {}
    return {
        "verdict": asdict(judge(content, tested)),
        "differences": {
            name: {key: asdict(one) for key, one in found.items()}
            for name, found in differences.items()
        },
    }


def _counts(content: Content) -> dict[str, list[int]]:
    """Images by split, and generated ones; one number per group."""
    generated = {
        "candidates": content.candidates,
        "copies": content.copies,
        "kept": content.kept,
    }
    return {name: counts.tolist() for name, counts in {**content.counts, **generated}.items()}
