"""Whole runs without attribute labels, beside the same runs with them, on outfits.

`given`, `unknown`: raysynth's own test WGA with and without attributes of training and validation;
`erm`: of the plain network. Test is measured in the true groups in both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from measure import run

SEVERITIES = (0.95, 0.99)
ALONE = ("references.names=[erm]", "references.controls=[]")
"""Nothing besides that is compared with."""
BUDGETS = (
    *("references.seeds=1", "references.steps=200", "search.trials=3", "search.ratios=[0.15,0.3]"),
    *("search.steps=[150,450]", "classifier.seeds=1", "classifier.steps=300"),
    *("classifier.batch_size=64", "synthesis.images_per_group=400"),
)
"""Those of configs/benchmarks/outfits_fresh.yaml, for both."""
QUICK = ("search.trials=1", "synthesis.images_per_group=100")


def unknown_attributes(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    found: dict[str, float] = {}
    for severity in SEVERITIES[1:] if quick else SEVERITIES:
        for attributes in ("given", "unknown"):
            more = (*ALONE, *BUDGETS, *(QUICK if quick else ()))
            methods = _methods(folder, seed, severity, attributes, more)
            found[f"{severity} {attributes}"] = methods["raysynth"]["wga"]["mean"]
            if attributes == "given":
                found[f"{severity} erm"] = methods["erm"]["wga"]["mean"]
    return {name: round(value, 4) for name, value in found.items()}


def _methods(
    folder: Path, seed: int, severity: float, attributes: str, more: tuple[str, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    """The methods of a run, which is made once."""
    name = f"{attributes}-{severity}-{seed}"
    given = [f"storage_path={folder}", f"name={name}", f"seed={seed}"]
    given += [f"dataset.severity={severity}", f"dataset.attributes={attributes}", *more]
    cost, _ = run([sys.executable, "-m", "raysynth", "run", *given])
    print(f"  {name}: {cost.cpu_seconds:.0f} CPU s", file=sys.stderr, flush=True)
    results = json.loads((folder / name / "report" / "results.json").read_text())
    return dict(results["methods"])
