"""Fidelity and memorisation against passes over a cluster's images: which steps rule follows.

    python benchmarks/passes.py [--storage FOLDER] [--quick] [--engine lora|full]
        [--sizes 20 100 990] [--steps 15 30 60 120 240] [--set section.key=value ...]

Clusters of 20, 100 and 990 images are drawn at random from an aligned group of outfits (severity
.99, 1,980 pullovers on grass); each is learnt for several numbers of steps by an adapter of its
own. As many images of the group that no adapter saw are the control: `nearest_is_training` is the
share of generated images that lie nearer to a training image than to any control image, one half
where nothing is memorised. The means of --repeats draws are printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from candidates import Observer, Real, fine_tune, generate, load_real, prepared
from measure import finish, parser

from raysynth.config.files import load_config
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.knobs import digest_of
from raysynth.synthesis.plan import plan_specs, whole
from raysynth.synthesis.specs import Asked

SIZES, QUICK_SIZES = (20, 100, 990), (20,)
STEPS, QUICK_STEPS = (15, 30, 60, 120, 240), (4, 8)
IMAGES = 150
GROUP, OTHER = 0, 3
"""Pullovers on grass, coats on gravel."""


def sweep(storage: Path, run: Path, engine: str, repeat: int, options: Any) -> list[dict[str, Any]]:
    """A row per size and steps, one draw of clusters."""
    real, quick = load_real(run), options.quick
    sizes, step_counts = options.sizes, options.steps
    if quick:
        sizes, step_counts = QUICK_SIZES, QUICK_STEPS
    grid = [(size, steps) for size in sizes for steps in step_counts]
    dice = np.random.default_rng(repeat)
    members = np.flatnonzero(real.group["train"] == GROUP)
    shuffled = {size: dice.permutation(members)[: 2 * size] for size in sizes}
    clusters = lay_out(real, [shuffled[size][:size] for size, _ in grid])
    overrides = {f"{GROUP}-{k}": {"steps": steps} for k, (_, steps) in enumerate(grid)}
    overrides[f"{OTHER}-0"] = {"steps": 1}
    settings = [f"finetune.engine={engine}", f"finetune.overrides={overrides}", f"seed={repeat}"]
    images = 10 if quick else IMAGES
    settings += [f"synthesis.images_per_group={images * len(grid)}", "finetune.max_passes=1e9"]
    config = load_config(None, [*settings, *options.set])
    work = storage / f"{engine}-{digest_of([config.finetune.model_dump(mode='json'), repeat])}"
    adapters, _ = fine_tune(config, real, work, clusters)
    counts = np.bincount(clusters["group"], minlength=4)
    asked = Asked.of(config, settled(recipe_of(config), counts))
    specs = whole(plan_specs(asked, adapters, real.groups, counts))
    specs = specs.filter(pa.compute.equal(specs["group"], GROUP))
    pixels, _ = generate(config, real, work, adapters, specs)
    cluster, observer = specs["cluster"].to_numpy(), Observer(config, real)
    training = recipe_of(config).training
    assert training is not None
    rows = []
    for number, (size, steps) in enumerate(grid):
        mine = pixels[cluster == number]
        seen = observer.look_at_one(mine, GROUP)
        pair = shuffled[size][:size], shuffled[size][size:]
        rows.append(
            {
                "images": size,
                "steps": steps,
                "passes": round(steps * min(training.budget.batch_size, size) / size, 1),
                **seen,
                "nearest_is_training": observer.nearest_is_training(mine, *pair),
            }
        )
        print(f"  {rows[-1]}", file=sys.stderr)
    return rows


def lay_out(real: Real, members: list[np.ndarray]) -> pa.Table:
    """The clusters table of these clusters of GROUP; images may be in several."""
    # The other class needs an adapter too: one of its aligned group.
    other = np.flatnonzero(real.group["train"] == OTHER)[:20]
    parts = [(rows, GROUP, number) for number, rows in enumerate(members)] + [(other, OTHER, 0)]
    return pa.table(
        {
            "id": [real.ids["train"][i] for rows, _, _ in parts for i in rows.tolist()],
            "group": np.concatenate([np.full(len(rows), g) for rows, g, _ in parts]),
            "cluster": np.concatenate([np.full(len(rows), k) for rows, _, k in parts]),
        }
    )


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None, help="kept folder; default: new")
    options.add_argument("--engine", choices=("lora", "full"), default="lora")
    options.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="images of a cluster")
    options.add_argument("--steps", nargs="*", type=int, default=STEPS)
    options.add_argument("--set", nargs="*", default=[], help="section.key=value")
    arguments = options.parse_args()
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-passes-"))
    run = prepared(storage)
    repeats = arguments.repeats or (1 if arguments.quick else 2)
    draws = [sweep(storage, run, arguments.engine, repeat, arguments) for repeat in range(repeats)]
    rows = [
        {key: round(float(np.mean([one[key] for one in same])), 3) for key in same[0]}
        for same in zip(*draws, strict=True)
    ]
    numbers = {"engine": arguments.engine, "repeats": repeats, "rows": rows}
    finish(f"passes_{arguments.engine}", numbers, {}, arguments.quick)


if __name__ == "__main__":
    main()
