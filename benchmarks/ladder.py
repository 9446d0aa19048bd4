"""Where between a real image and a generated one does the worst group lose?

    python benchmarks/ladder.py [--quick] [--seeds 10 11 12] [--steps 200 400] [--folder FOLDER]

The same classifier, budget and number of images on every rung, from real group-balanced images down
to what a run keeps:

- real: group-balanced images of the training garments, a bound that no run reaches;
- autoencoder: the same images, encoded and decoded by the base's autoencoder;
- noised S: the same, noised to the share S of the schedule and denoised by the run's adapters;
- balanced: drawn from noise by adapters that were trained on the balanced images;
- drawn: drawn by the run's adapters, which saw twenty images of a conflicting group (`fine`: in 25
  steps instead of the configuration's);
- selected: the best of them by CLIP score, as a run keeps them.

Trained on each: the small network for two stages, its head fitted to the run's real images
(`small`); the same network judged with the head it got from the rung's images alone (`alone`); a
head on the base's frozen CLIP fitted to the rung's images alone (`clip_alone`) or to real ones too,
as validation says (`clip`). Chosen on validation, measured on test. `garment`, `ground`: the
judge's; `brightness`, `contrast`, `colour`: spread over a group's images, of real ones' spread, the
geometric mean of the groups. Images and trainings that are there are not made again (FOLDER).
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from candidates import (
    QUICK,
    Real,
    fine_tune,
    generate,
    image_set,
    kept_by_score,
    load_real,
    prepared,
)
from judge import accuracies, load_judge
from measure import finish, parser
from workload import FROM_NOISE

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.fidelity.statistics import plain
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.groups.metrics import GroupMetrics, group_metrics
from raysynth.heads.spec import TRAINED
from raysynth.models.latents import decode, encode
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import Data, ImageSet
from raysynth.storage.tables import encode_png
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.plan import plan_specs, whole
from raysynth.synthesis.specs import Asked
from raysynth.synthesis.task import Drawing
from raysynth.training.fit import fit
from raysynth.training.two_stage import configured, plan_of

EACH, QUICK_EACH = 500, 30
"""Images of each group on every rung; a quickstart keeps up to 600."""
STRENGTHS = (0.3, 0.5, 0.7, 0.85)
FINELY = ("synthesis.steps=25",)
BATCHES = ("classifier.batch_size=128",)
"""The default when the ladder was measured first."""
EDIT_STEPS = 12
SEVERITY, BALANCED = 0.99, 0.5
SEEDS, TRAININGS = (10, 11, 12), 3
SHARES = (1.0, 0.5, 0.2, 0.0)
RUNGS = (
    "real",
    "autoencoder",
    *(f"noised {strength:g}" for strength in STRENGTHS),
    "balanced",
    "balanced fine",
    "drawn fine",
    "drawn",
    "selected",
)
BATCH = 64


class Images:
    """The rungs' images of one data seed, made once."""

    def __init__(self, folder: Path, seed: int, each: int, overrides: list[str]) -> None:
        torch.set_num_threads(1)
        self.folder, self.each, self.seed = folder, each, seed
        self.real = load_real(prepared(folder, SEVERITY, seed))
        self.given = [
            f"seed={seed}",
            f"dataset.severity={SEVERITY}",
            *FROM_NOISE,
            *BATCHES,
            *overrides,
        ]
        self.config = load_config(None, self.given)

    def make(self) -> None:
        """All rungs, each in its file."""
        self.even = load_real(prepared(self.folder, BALANCED, self.seed))
        rows = self._even_rows()
        pixels, group = self.even.pixels["train"][rows], self.even.group["train"][rows]
        self.once("real", lambda: (pixels, group))
        own, even = self.adapters(self.real, "adapters"), self.adapters(self.even, "even")
        drawing = partial(self.drawn, self.real, *own)
        self.once("autoencoder", lambda: (self._decoded(own, pixels), group))
        for strength in STRENGTHS:
            edit = partial(self._noised, own, pixels, group, strength)
            self.once(f"noised {strength:g}", edit)
        self.once("balanced", lambda: self.drawn(self.even, *even))
        self.once("balanced fine", lambda: self.drawn(self.even, *even, FINELY))
        self.once("drawn fine", lambda: drawing(FINELY))
        self.once("drawn", drawing)
        self.once("selected", lambda: drawing(select=True))

    def path(self, rung: str) -> Path:
        """The file of a rung's images."""
        return self.folder / f"rungs-{self.seed}" / f"{rung.replace(' ', '-')}.npz"

    def once(self, rung: str, make: Any) -> None:
        """Make the images of a rung, unless they are there."""
        path = self.path(rung)
        if path.exists():
            return
        pixels, group = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partly = path.with_suffix(".part.npz")
        np.savez(partly, pixels=pixels, group=group)
        partly.rename(path)

    def _even_rows(self) -> np.ndarray:
        """`each` rows of every group of the balanced training images."""
        rng, group = np.random.default_rng(self.seed), self.even.group["train"]
        groups = range(self.even.groups.count)
        return np.concatenate([self._some(np.flatnonzero(group == g), rng) for g in groups])

    def _some(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.sort(rng.permutation(rows)[: self.each])

    def adapters(self, real: Real, name: str) -> tuple[Path, list[Any]]:
        """The adapters of a data set, and their folder."""
        work = self.folder / f"{name}-{self.seed}"
        return work, fine_tune(self.config, real, work)[0]

    def drawn(
        self,
        real: Real,
        work: Path,
        adapters: list[Any],
        settings: Sequence[str] = (),
        select: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images of adapters, with other settings of synthesis, the selected ones or any."""
        config = load_config(None, [*self.given, *settings])
        specs = specs_of(config, real, adapters)
        pixels, _ = generate(config, real, work, adapters, specs)
        group, rng = specs["group"].to_numpy(), np.random.default_rng(self.seed)
        may = kept_by_score(config, real, pixels, specs) if select else np.ones(len(group), bool)
        rows = [np.flatnonzero((group == g) & may) for g in range(real.groups.count)]
        chosen = np.concatenate([self._some(each, rng) for each in rows])
        return pixels[chosen], group[chosen]

    def _decoded(self, own: tuple[Path, list[Any]], pixels: np.ndarray) -> np.ndarray:
        base = ImageGenerator(Drawing.of(self.config), str(own[0]), []).base
        parts = np.array_split(pixels, -(-len(pixels) // BATCH))
        return np.concatenate([decode(base, encode(base, part)) for part in parts])

    def _noised(
        self,
        own: tuple[Path, list[Any]],
        pixels: np.ndarray,
        group: np.ndarray,
        strength: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every image noised to the share `strength` and denoised as one of its group."""
        work, adapters = own
        each = [f"synthesis.images_per_group={self.each}", f"synthesis.steps={EDIT_STEPS}"]
        config = load_config(None, [*self.given, *each])
        specs = specs_of(config, self.real, adapters)
        images = ImageGenerator(Drawing.of(config), str(work), [a.name for a in adapters])
        images.strength = strength
        order = np.argsort(group, kind="stable")
        assert (group[order] == specs["group"].to_numpy()).all()
        made = []
        for first in range(0, specs.num_rows, BATCH):
            batch = specs.slice(first, BATCH)
            names = ("prompt", "negative_prompt", "adapter", "seed")
            sources = pa.array([encode_png(p) for p in pixels[order[first : first + BATCH]]])
            made.append(images(*(batch[n].to_pylist() for n in names), sources=sources))
        return np.concatenate(made), group[order]


def specs_of(config: Config, real: Real, adapters: list[Any]) -> pa.Table:
    """What a run of this configuration asks for."""
    recipe = settled(recipe_of(config), real.counts)
    return whole(plan_specs(Asked.of(config, recipe), adapters, real.groups, real.counts))


def classified(
    folder: Path, seed: int, rung: str, network: str, steps: int, each: int, overrides: list[str]
) -> dict[str, Any]:
    """Validation and test of the classifiers trained on a rung, three trainings each."""
    done = folder / f"records-{seed}" / f"{rung.replace(' ', '-')}-{network}-{steps}.json"
    if done.exists():
        return json.loads(done.read_text())
    images = Images(folder, seed, each, overrides)
    stored = np.load(images.path(rung))
    synthetic = image_set(
        stored["pixels"],
        stored["group"],
        [str(i) for i in range(len(stored["group"]))],
        images.real.groups,
    )
    config = _classifier(images.config, network, steps, len(images.real.group["train"]), synthetic)
    rows: dict[str, list[Any]] = {}
    for training in range(TRAININGS):
        for name, found in _trained(config, images.real, synthetic, training).items():
            rows.setdefault(name, []).append(found)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps(rows))
    return rows


def _classifier(config: Config, network: str, steps: int, real: int, synthetic: ImageSet) -> Config:
    ratio = len(synthetic) / real
    changes = {"ratio": ratio, "steps": steps}
    if network == "clip":
        changes |= {"backbone": "clip", "steps": 0}
    classifier = config.classifier.model_copy(update=changes)
    return config.model_copy(update={"classifier": classifier})


def _trained(
    config: Config, real: Real, synthetic: ImageSet, training: int
) -> dict[str, dict[str, float]]:
    """Of one training: name -> validation and test, of the head that validation prefers."""
    torch.set_num_threads(1)
    sets = {
        split: image_set(real.pixels[split], real.group[split], real.ids[split], real.groups)
        for split in ("train", "validation", "test")
    }
    data, test = Data(sets["train"], sets["validation"], synthetic, real.groups), sets["test"]
    frozen = config.classifier.steps == 0
    heads = [(d, s) for d in config.search.head_weight_decays for s in (SHARES if frozen else (1,))]
    plan = plan_of(configured(config.classifier), config.classifier, training, heads)
    if not frozen:
        plan = replace(plan, heads=(*plan.heads, TRAINED))
    alone = {h.name for h in plan.heads if h == TRAINED or h.real_share == 0}
    ours = {h.name for h in plan.heads} - (set() if frozen else alone)
    wanted = {"clip": ours, "clip_alone": alone} if frozen else {"small": ours, "alone": alone}
    best: dict[str, tuple[GroupMetrics, GroupMetrics, int]] = {}
    for snapshot in fit(plan, data, blueprint_of(config)):
        features, logits = snapshot.network.outputs(test)
        for name, among in wanted.items():
            head = max(among, key=lambda each: snapshot.validation[each].score)
            seen = snapshot.validation[head]
            if name in best and best[name][0].score >= seen.score:
                continue
            fitted = snapshot.fitted[head].head if head in snapshot.fitted else None
            told = logits if fitted is None else features @ fitted.weight.T + fitted.bias
            counts = data.train.counts(real.groups.count)
            tested = group_metrics(told.argmax(1).cpu().numpy(), test.label, test.group, counts)
            best[name] = seen, tested, snapshot.step
    return {
        name: {
            "validation_wga": seen.wga,
            "wga": tested.wga,
            "aga": tested.aga,
            "step": step,
        }
        for name, (seen, tested, step) in best.items()
    }


def looks(folder: Path, seed: int, rung: str, each: int, overrides: list[str]) -> dict[str, float]:
    """What the judge sees in a rung, and its spreads over those of the real rung."""
    images = Images(folder, seed, each, overrides)
    known, stored = (np.load(images.path(name)) for name in ("real", rung))
    seen = accuracies(load_judge(), stored["pixels"], stored["group"], images.real.groups)
    row = {name: seen[name] for name in ("garment", "ground")}
    groups = range(images.real.groups.count)
    ratios = np.array([_spreads(stored, g) / _spreads(known, g) for g in groups])
    means = [statistics.geometric_mean(column) for column in ratios.T.tolist()]
    return row | dict(zip(("brightness", "contrast", "colour"), means, strict=True))


def _spreads(stored: Any, group: int) -> np.ndarray:
    """[3] standard deviations over a group's images of brightness, contrast and blue above red."""
    seen = plain(stored["pixels"][stored["group"] == group])
    brightness, contrast, red_green, blue_yellow, _ = seen.T
    return np.std([brightness, contrast, blue_yellow - red_green / 2], axis=1)


def table(
    found: dict[tuple[Any, ...], Any],
    columns: list[tuple[str, str, int]],
    rungs: Sequence[str] = RUNGS,
) -> list[Any]:
    """A row per rung: means over the data seeds, and the mean of each."""
    rows = []
    for rung in rungs:
        row: dict[str, Any] = {"rung": rung}
        for name, network, steps in columns:
            key = name if network == "clip" else f"{name} {steps}"
            seeds = [
                statistics.mean(training["wga"] for training in records[name])
                for (of, net, many, _), records in found.items()
                if (of, net, many) == (rung, network, steps)
            ]
            row[key] = round(100 * statistics.mean(seeds), 1)
            row[f"{key} seeds"] = [round(100 * one, 1) for one in seeds]
        rows.append(row)
    return rows


Given = tuple[Path, int, list[str]]
"""Folder of images and records, images of each group, settings."""


def asked(about: str) -> tuple[Any, Given]:
    """The options of this script and of sampling.py, and what follows from them."""
    options = parser(about)
    options.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options.add_argument("--steps", type=int, nargs="+", default=[200, 400])
    options.add_argument("--folder", type=Path, default=Path("runs/ladder"))
    options.add_argument("--workers", type=int, default=2)
    arguments = options.parse_args()
    if not arguments.quick:
        return arguments, (arguments.folder / "full", EACH, [])
    arguments.seeds, arguments.steps = arguments.seeds[:1], [20]
    return arguments, (arguments.folder / "quick", QUICK_EACH, QUICK)


def main() -> None:
    arguments, given = asked(__doc__ or "")
    folder, each, overrides = given
    for seed in arguments.seeds:  # Ray, in this process alone
        prepared(folder, SEVERITY, seed)
        prepared(folder, BALANCED, seed)
    tasks = [
        (rung, network, steps, seed)
        for seed in arguments.seeds
        for network, budgets in (("small", arguments.steps), ("clip", [0]))
        for steps in budgets
        for rung in RUNGS
    ]
    with ProcessPoolExecutor(
        arguments.workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        list(pool.map(partial(_make, folder, each, overrides), arguments.seeds))
        ran = partial(_run, folder, each, overrides)
        found = {}
        for task, records in zip(tasks, pool.map(ran, tasks), strict=True):
            found[task] = records
            print(*task, {n: [round(r["wga"], 3) for r in rs] for n, rs in records.items()})
            sys.stdout.flush()
    columns = [
        (name, "small", steps) for steps in arguments.steps for name in ("small", "alone")
    ] + [("clip", "clip", 0), ("clip_alone", "clip", 0)]
    rows = table(found, columns)
    for row in rows:
        seen = [looks(folder, seed, row["rung"], each, overrides) for seed in arguments.seeds]
        row |= {name: round(statistics.mean(s[name] for s in seen), 3) for name in seen[0]}
    finish("ladder", {"seeds": list(arguments.seeds), "rows": rows}, {}, arguments.quick)


def _make(folder: Path, each: int, overrides: list[str], seed: int) -> None:
    Images(folder, seed, each, overrides).make()


def _run(folder: Path, each: int, overrides: list[str], task: tuple[Any, ...]) -> Any:
    rung, network, steps, seed = task
    return classified(folder, seed, rung, network, steps, each, overrides)


if __name__ == "__main__":
    main()
