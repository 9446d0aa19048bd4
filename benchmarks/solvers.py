"""Quality against solver, steps, noise levels and guidance: which default follows.

    python benchmarks/solvers.py [--quick] [--run FOLDER]

One adapter per cluster of outfits (FOLDER is a run as generation.py makes it); the judge says
how many images show the garment and the ground that were asked for. Seeds are the same for every
row, so that rows differ by the solver alone. Beside it the spread of brightness (mean of the middle
16 x 8 pixels) and of contrast (standard deviation of the grey image) over a group's images, as
shares of the real test images' own, and how often the network sees an image. DDIM integrates noise
and velocity models, not the flow that the embedded base predicts: it is refused there, and this
script says so. Full mode draws results/solvers.png. Exits 1 when the default solver and steps are
worse than the best row by more than a point (quick: three points).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from generation import ADAPTERS, IMAGES, knobs, prepare
from judge import accuracies, load_judge
from measure import RESULTS, finish, parser

from raysynth.adapters.record import Adapter
from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.storage.tables import decode_images, read_table, split_files
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.levels import find_way
from raysynth.synthesis.schedule import EVEN
from raysynth.synthesis.solver import build_solver, check_solver
from raysynth.synthesis.task import Drawing

SOLVERS = ("dpmsolver++", "unipc", "ddim")
MATCHED = "matched"
LABELS = "{name: matched, labels: 0.5}"
ABOVE = "{name: classifier_free, interval: [0.3, 1.0]}"
BETWEEN = "{name: classifier_free, interval: [0.2, 0.9]}"
LEVELS = (
    ("dpmsolver++", "even", 25, ""),
    ("dpmsolver++", "{name: shifted, shift: 2}", 6, ""),
    ("dpmsolver++", "shifted", 6, ""),
    ("unipc", "shifted", 6, ""),
    ("dpmsolver++", "karras", 6, ""),
    ("dpmsolver++", "align_your_steps", 6, ""),
    *(("dpmsolver++", MATCHED, steps, "") for steps in (4, 5, 6, 8)),
    ("unipc", MATCHED, 6, ""),
    ("dpmsolver++", LABELS, 6, ""),
    *(("dpmsolver++", schedule, 6, ABOVE) for schedule in ("even", MATCHED)),
    *(("dpmsolver++", schedule, 6, BETWEEN) for schedule in ("even", MATCHED)),
)
"""(Solver, schedule, steps, interval of guidance) of the rows by levels."""
QUICK_LEVELS = (("dpmsolver++", "shifted", 4, ""), ("dpmsolver++", MATCHED, 4, ABOVE))
STEPS, QUICK_STEPS = (2, 3, 4, 5, 6, 8, 10, 20, 50), (4, 6, 20)
GUIDANCE, QUICK_GUIDANCE = (1.0, 1.5, 2.0, 3.0, 4.0), (1.0, 2.0)
BATCH = 64
BAR, QUICK_BAR = 0.01, 0.03


class Bench:
    """One generator, whose solver, steps and guidance are turned."""

    def __init__(self, root: Path, adapters: list[Adapter], groups: Groups, each: int):
        self.root = root
        self.config = load_config(None, knobs(root, IMAGES))
        names = [adapter.name for adapter in adapters]
        self.generate = ImageGenerator(Drawing.of(self.config), str(root / "adapters"), names)
        self.rows = [adapter for adapter in adapters for _ in range(each)]
        self.groups, self.judge = groups, load_judge()
        real = read_table(str(root), ["group", "image"], split_files(f"{root}/real", "test"))
        pixels, group = decode_images(real["image"]), real["group"].to_numpy()
        self.real = spreads(pixels, group, groups.count)

    def turn(self, solver: str, steps: int, guidance: float, schedule: str, interval: str) -> int:
        """Set one up; returns how often the network sees an image."""
        given = [f"synthesis.solver={solver}", f"synthesis.steps={steps}"]
        given += [f"synthesis.schedule={schedule}", "synthesis.gaussian_above=1"]
        if interval:
            given += [f"synthesis.guidance=[{interval}]"]
        config = load_config(None, [*knobs(self.root, IMAGES), *given])
        check_solver(config)
        generate, synthesis = self.generate, config.synthesis
        generate.solver = build_solver(solver, generate.base.scheduler)
        generate.guide = guide_of(synthesis.guidance, guidance)
        sections = (config.base, synthesis, recipe_of(config), config.resources)
        generate.levels = find_way(*sections, f"{self.root}/real", self.groups).levels
        generate.steps = steps
        return generate.guide.evaluations(generate.levels or steps)

    def row(
        self, solver: str, steps: int, guidance: float, schedule: str = EVEN, interval: str = ""
    ) -> dict[str, Any]:
        """Judge accuracies, spreads and images per CPU second of one setting."""
        generate, evaluations = (
            self.generate,
            self.turn(solver, steps, guidance, schedule, interval),
        )
        start, parts = time.process_time(), []
        for first in range(0, len(self.rows), BATCH):
            rows = self.rows[first : first + BATCH]
            prompts, names = [row.prompt for row in rows], [row.name for row in rows]
            seeds = range(first, first + len(rows))
            parts.append(generate(prompts, [""] * len(rows), names, seeds))
        spent = time.process_time() - start
        group = np.array([row.group for row in self.rows])
        pixels = np.concatenate(parts)
        judged = accuracies(self.judge, pixels, group, self.groups)
        ratio = spreads(pixels, group, self.groups.count) / self.real
        result = {
            "solver": solver,
            "schedule": schedule,
            "levels": [round(level, 3) for level in generate.levels or ()],
            "steps": steps,
            "guidance": guidance,
            "interval": interval,
            "evaluations": evaluations,
            "brightness": dict(zip(self.groups.names, ratio[0].round(2).tolist(), strict=True)),
            "contrast": dict(zip(self.groups.names, ratio[1].round(2).tolist(), strict=True)),
            **{name: round(value, 4) for name, value in judged.items()},
            "images_per_cpu_second": round(len(self.rows) / spent, 1),
        }
        print(f"  {result}", file=sys.stderr)
        return result


def spreads(pixels: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """[2, G] standard deviations of brightness and contrast over a group's images.

    `pixels`: [N, 32, 32, 3] uint8; `group`: [N].
    """
    grey = pixels.mean(axis=3)
    said = np.stack([grey[:, 8:24, 12:20].mean(axis=(1, 2)), grey.std(axis=(1, 2))])
    return np.stack([said[:, group == g].std(axis=1) for g in range(groups)], axis=1)


def by_levels(bench: Bench, quick: bool) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows by noise levels and interval of guidance, and what was refused."""
    rows, refused = [], []
    guidance_scale = recipe_of(bench.config).guidance_scale
    for solver, schedule, steps, interval in QUICK_LEVELS if quick else LEVELS:
        try:
            rows.append(bench.row(solver, steps, guidance_scale, schedule, interval))
        except ConfigError as error:
            refused.append({"solver": solver, "schedule": schedule, "why": str(error)})
    return rows, refused


def sweep(bench: Bench, quick: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list]:
    """Rows by solver and steps, rows by guidance, and what was refused."""
    default, guidance_scale = bench.config.synthesis, recipe_of(bench.config).guidance_scale
    by_steps, refused = [], []
    for solver in SOLVERS:
        try:
            by_steps += [
                bench.row(solver, steps, guidance_scale)
                for steps in (QUICK_STEPS if quick else STEPS)
            ]
        except ConfigError as error:
            refused.append({"solver": solver, "why": str(error)})
    by_guidance = [
        bench.row(default.solver, default.steps, guidance)
        for guidance in (QUICK_GUIDANCE if quick else GUIDANCE)
    ]
    return by_steps, by_guidance, refused


def draw(
    by_steps: list[dict[str, Any]],
    by_guidance: list[dict[str, Any]],
    default: Any,
    guidance_scale: float,
) -> None:
    """results/solvers.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for solver, colour in zip(SOLVERS, ("#c2410c", "#2a9d8f", "#64748b"), strict=True):
        rows = [row for row in by_steps if row["solver"] == solver]
        if rows:
            accuracy = [100 * row["both"] for row in rows]
            left.plot([row["steps"] for row in rows], accuracy, "o-", color=colour, label=solver)
    left.axvline(default.steps, color="#94a3b8", ls=":", label=f"default: {default.steps} steps")
    left.set(xscale="log", xlabel="steps", ylabel="garment and ground right, %")
    ticks = sorted({row["steps"] for row in by_steps})
    left.set_xticks(ticks, [str(tick) for tick in ticks])
    left.minorticks_off()
    left.legend(frameon=False)
    accuracy = [100 * row["both"] for row in by_guidance]
    right.plot([row["guidance"] for row in by_guidance], accuracy, "o-", color="#c2410c")
    right.axvline(guidance_scale, color="#94a3b8", ls=":")
    right.set(xlabel=f"guidance at {default.steps} steps")
    for axis in (left, right):
        axis.grid(color="#d9dee6", lw=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "solvers.png", dpi=160)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--run", type=Path, help="folder of the run; default: new")
    options.add_argument("--images", type=int, default=None, help="per row; default: 1200")
    arguments = options.parse_args()
    root, adapters, groups = prepare(arguments.run, arguments.quick)
    images = arguments.images or (120 if arguments.quick else 1200)
    bench = Bench(root, adapters, groups, images // ADAPTERS)
    by_steps, by_guidance, refused = sweep(bench, arguments.quick)
    levels, no_levels = by_levels(bench, arguments.quick)
    default = bench.config.synthesis
    best = max(row["both"] for row in by_steps)
    chosen = [row for row in by_steps if row["solver"] == default.solver]
    mine = next(row for row in chosen if row["steps"] == default.steps)
    bar = QUICK_BAR if arguments.quick else BAR
    if not arguments.quick:
        draw(by_steps, by_guidance, default, recipe_of(bench.config).guidance_scale)
    numbers = {
        "images_per_row": len(bench.rows),
        "by_steps": by_steps,
        "by_guidance": by_guidance,
        "by_levels": levels,
        "refused": refused + no_levels,
        "default": mine,
        "best": best,
    }
    within = best - mine["both"] <= bar
    finish("solvers", numbers, {f"default within {bar} of the best": within}, arguments.quick)


if __name__ == "__main__":
    main()
