"""How do solver, noise levels and guidance trade evaluations against fidelity and accuracy?

    python benchmarks/sampling.py [--quick] [--seeds 10 11 12] [--steps 200 400] [--folder FOLDER]

The run's adapters of ladder.py (FOLDER is shared with it) draw a run's candidates with every
setting; the best by CLIP score train the small network, for several budgets, since images that vary
more may need more steps. `evaluations`: of the network, per image; the other columns are
ladder.py's. Chosen on validation, measured on test. What is there is not made again.
"""

from __future__ import annotations

import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from candidates import prepared, way_of
from ladder import SEVERITY, Images, asked, classified, looks, table
from measure import finish

from raysynth.config.files import load_config
from raysynth.generators.recipe import recipe_of
from raysynth.synthesis.guidance import guide_of

ABOVE = "synthesis.guidance=[{name: classifier_free, interval: [0.3, 1.0]}]"
MATCHED = "synthesis.schedule=matched"


def begun(level: float, steps: int, *others: str) -> list[str]:
    """Settings of images that begin at their group's Gaussian."""
    return [f"synthesis.gaussian_above={level}", f"synthesis.steps={steps}", *others]


SETTINGS: dict[str, list[str]] = {
    "even 6": [],
    "even 6 guided above": [ABOVE],
    "even 25": ["synthesis.steps=25"],
    "shifted 6": ["synthesis.schedule=shifted"],
    "matched 6": [MATCHED],
    "matched 6 guided above": [MATCHED, ABOVE],
    "matched 4": [MATCHED, "synthesis.steps=4"],
    "gaussian 0.9 6": begun(0.9, 6),
    "gaussian 0.8 6 guided above": begun(0.8, 6, ABOVE),
    "gaussian 0.8 4": begun(0.8, 4),
    "gaussian 0.8 4 guided above": begun(0.8, 4, ABOVE),
    "gaussian 0.7 4 guided above": begun(0.7, 4, ABOVE),
    "gaussian 0.7 3 guided above": begun(0.7, 3, ABOVE),
}
"""Row -> settings; `guided above`: no guidance, and no second evaluation, at levels below 0.3."""


def make(folder: Path, each: int, overrides: list[str], task: tuple[int, str]) -> float:
    """Draw and select the images of a setting; evaluations per image."""
    seed, row = task
    images = Images(folder, seed, each, overrides)
    drawn = partial(images.drawn, images.real, *images.adapters(images.real, "adapters"))
    images.once(row, lambda: drawn(SETTINGS[row], select=True))
    config = load_config(None, [*images.given, *SETTINGS[row]])
    guide = guide_of(config.synthesis.guidance, recipe_of(config).guidance_scale)
    way = way_of(config, images.real, images.folder)
    return guide.evaluations(way.levels or config.synthesis.steps)


def train(folder: Path, each: int, overrides: list[str], task: tuple[str, int, int]) -> Any:
    """The classifiers of a setting, of a budget of steps and of a data seed."""
    row, steps, seed = task
    return classified(folder, seed, row, "small", steps, each, overrides)


def main() -> None:
    arguments, given = asked(__doc__ or "")
    folder, each, overrides = given
    for seed in arguments.seeds:
        prepared(folder, SEVERITY, seed)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        drawn = [(seed, row) for seed in arguments.seeds for row in SETTINGS]
        evaluations = dict(zip(drawn, pool.map(partial(make, *given), drawn), strict=True))
        tasks = [(row, n, s) for s in arguments.seeds for n in arguments.steps for row in SETTINGS]
        found = {}
        for task, records in zip(tasks, pool.map(partial(train, *given), tasks), strict=True):
            row, steps, seed = task
            found[row, "small", steps, seed] = records
            wga = {name: [round(r["wga"], 3) for r in rows] for name, rows in records.items()}
            print(*task, wga, flush=True)
    columns = [(n, "small", steps) for steps in arguments.steps for n in ("small", "alone")]
    rows = table(found, columns, tuple(SETTINGS))
    for row in rows:
        name = row["rung"]
        seen = [looks(folder, seed, name, each, overrides) for seed in arguments.seeds]
        row |= {key: round(statistics.mean(s[key] for s in seen), 3) for key in seen[0]}
        row["evaluations"] = statistics.mean(evaluations[s, name] for s in arguments.seeds)
    finish("sampling", {"seeds": list(arguments.seeds), "rows": rows}, {}, arguments.quick)


if __name__ == "__main__":
    main()
