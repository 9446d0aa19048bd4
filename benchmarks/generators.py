"""Every generator on outfits: what it costs, how right and how varied its images are.

    python benchmarks/generators.py [--storage FOLDER] [--quick] [--severity 0.99] [--seeds 3]
        [--only edit ...] [--set synthesis.strength=0.6 ...]

Fine-tuning and generation run in this process (CPU seconds of one thread); the judge says how many
images show the garment and the ground that were asked for, per group. `validation_wga` is the
configured classifier's, without a search, on the images that the default selection keeps. Test
images are only what the images' spread is compared with. Exits 1 when a generator has fewer right
images than `vanilla` in any group, by more than five points.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from candidates import (
    QUICK,
    Observer,
    Real,
    draw,
    fine_tune,
    hash_of,
    load_real,
    prepared,
    sheet,
    validation_wga,
)
from measure import finish, parser

from raysynth.config.files import load_config
from raysynth.generators.generator import GENERATORS
from raysynth.generators.recipe import recipe_of


def row(name: str, storage: Path, real: Real, observer: Observer, options: Any) -> dict[str, Any]:
    """All numbers of one generator."""
    settings = [f"generator={name}", *(QUICK if options.quick else []), *options.set]
    config = load_config(None, settings)
    trained = recipe_of(config).training
    work = storage / "models" / ("none" if trained is None else f"{hash_of(config)}")
    adapters, tuned = fine_tune(config, real, work)
    specs, pixels, drawn = draw(config, real, work, adapters)
    group = specs["group"].to_numpy()
    sheet(pixels, group, storage / f"{name}.png")
    scores = validation_wga(config, real, pixels, specs, 1 if options.quick else options.seeds)
    found = {
        "generator": name,
        "models": len(adapters),
        "images": len(pixels),
        "finetune_cpu_seconds": round(tuned, 1),
        "images_per_cpu_second": round(len(pixels) / drawn, 1),
        **observer.look(pixels, group),
        "validation_wga": scores,
        "mean_validation_wga": round(mean(scores), 3),
    }
    print(f"  {found}", file=sys.stderr)
    return found


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None, help="kept folder; default: new")
    options.add_argument("--severity", type=float, default=0.99)
    options.add_argument("--seeds", type=int, default=3, help="seeds of the classifier")
    options.add_argument("--only", nargs="*", default=GENERATORS.names)
    options.add_argument("--set", nargs="*", default=[], help="section.key=value")
    arguments = options.parse_args()
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-generators-"))
    real = load_real(prepared(storage, arguments.severity))
    observer = Observer(load_config(), real)
    place = storage / f"made-{arguments.severity:g}"
    place.mkdir(exist_ok=True)
    rows = [row(name, place, real, observer, arguments) for name in arguments.only]
    plain = next((r["garment"] for r in rows if r["generator"] == "vanilla"), [])
    bars = {
        f"{r['generator']} at least vanilla": all(
            mine >= base - 0.05 for mine, base in zip(r["garment"], plain, strict=False)
        )
        for r in rows
    }
    numbers = {"severity": arguments.severity, "settings": arguments.set, "rows": rows}
    finish("generators", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
