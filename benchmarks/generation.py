"""Images per second from 12 adapters: raysynth's stage against diffusers' pipeline.

    python benchmarks/generation.py [--quick] [--run FOLDER]

FOLDER is a run of 12 fine-tuned adapters; it is made, and kept there, if it is not one yet
(outfits, three clusters per group). Then:

* raysynth: the real stage on a local Ray, 2,400 images, whole processes. It includes CLIP scoring,
  PNG, Parquet shards and the checkpoint; `unscored` leaves CLIP's scoring out; `compiled` has
  synthesis.compile and batches of 100, half an adapter's images.
* peers (peers/pipeline_lora.py), adapter by adapter, PNG files, all threads of the machine, at the
  fastest of several num_images_per_prompt: diffusers' defaults (float32, 50 steps, unfused LoRA);
  the same with raysynth's solver and steps; a tuned one (bfloat16, fused adapters).

Guidance is raysynth's everywhere: it costs a peer nothing. Images/s are warm: without the start of
processes and models, which `wall_seconds` includes. The pipeline's defaults are timed on some of
the images, all other rows on all. The judge says how many images show what was asked for.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measure import finish, medians, parser, precision, run
from PIL import Image
from workload import FROM_NOISE

from raysynth.adapters.record import Adapter, read_adapters
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.method import FOLDERS
from raysynth.storage.tables import groups_of, read_table

ADAPTERS, IMAGES, QUICK_IMAGES = 12, 2400, 600
PER_CALL = (8, 25, 100)
DEFAULTS_BAR, SAME_STEPS_BAR = 5.0, 2.5
QUICK_SAME_STEPS = {"bfloat16": 1.6, "float32": 1.1}
"""What `make bench` holds on to: uncompiled, 50 images per adapter; the pipeline is float32."""
JUDGE_BAR = 0.01
QUICK_JUDGE_BAR = 0.06  # a few hundred images: two and a half standard errors
PEER = Path(__file__).with_name("peers") / "pipeline_lora.py"
VARIANTS = {
    "default": [],
    "unscored": [],
    "compiled": ["synthesis.compile=true", "synthesis.batch_size=100"],
}
QUICK_ADAPTERS = ["finetune.steps=20", "dataset.train_images=1000", "dataset.severity=0.95"]
QUIET = {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def knobs(root: Path, images: int) -> list[str]:
    """The run that is measured, as the command line's overrides."""
    return [
        f"storage_path={root.parent}",
        f"name={root.name}",
        "clustering.k=3",
        "clustering.min_size=1",
        "finetune.min_images=1",
        f"synthesis.images_per_group={images // 4}",
        *FROM_NOISE,
    ]


def prepare(root: Path | None, quick: bool) -> tuple[Path, list[Adapter], Groups]:
    """The run, its 12 adapters, which are fine-tuned unless they are there, and its groups."""
    root = root or Path(tempfile.mkdtemp(prefix="raysynth-bench-")) / "generation"
    trained = root / "adapters" / "adapters.json"
    if not trained.exists():
        print("  fine-tuning 12 adapters", file=sys.stderr)
        overrides = [*knobs(root, IMAGES), *(QUICK_ADAPTERS if quick else [])]
        run([sys.executable, str(Path(__file__).parents[1] / "jobs" / "finetune.py"), *overrides])
    adapters = read_adapters(str(trained.parent))
    if len(adapters) != ADAPTERS:
        raise SystemExit(f"{root}: {len(adapters)} adapters, expected {ADAPTERS}")
    return root, adapters, _groups(root)


def child(root: Path, images: int, work: str, variant: str) -> None:
    """raysynth's stage in this process; prints its facts."""
    from raysynth.cluster.session import Session
    from raysynth.progress import Progress
    from raysynth.synthesis.levels import settled_way
    from raysynth.synthesis.plan import plan_specs
    from raysynth.synthesis.shards import read_manifest
    from raysynth.synthesis.specs import Asked
    from raysynth.synthesis.stage import generate
    from raysynth.synthesis.task import Task

    config = load_config(None, [*knobs(root, images), *VARIANTS[variant]])
    groups = _groups(root)
    trained = read_adapters(f"{root}/adapters")
    counts = np.ones(groups.count, dtype=np.int64)
    recipe = settled(recipe_of(config), counts)
    plan = plan_specs(Asked.of(config, recipe), trained, groups, counts)
    names = tuple(adapter.name for adapter in trained)
    folders = (f"{root}/adapters", names, f"{root}/clusters")
    sampler = _unscored() if variant == "unscored" else None
    with Progress(_stderr()) as progress, Session(config, work) as session:
        progress.stage("raysynth")
        session.start()
        way = settled_way(config, recipe, f"{root}/real", groups, work)
        task = Task.of(config, groups, *folders, sampler=sampler, recipe=recipe, way=way)
        generate(task, plan, work, progress)
    manifest = read_manifest(work)
    assert manifest is not None
    print(json.dumps(manifest["facts"]))


def _unscored() -> Any:
    """The real sampler without CLIP's scores."""
    from raysynth.scoring.columns import scores_of
    from raysynth.scoring.scorer import USUAL
    from raysynth.synthesis.actor import DiffusionSampler

    class Unscored(DiffusionSampler):
        def __init__(self, task: Any) -> None:
            super().__init__(task)
            self.score = self.nothing  # type: ignore[assignment]

        def nothing(self, images: np.ndarray, *_: Any) -> dict[str, pa.Array]:
            zeros = pa.array(np.zeros(len(images), np.float32))
            return {f.name: zeros.cast(f.type) for f in scores_of(USUAL)}

    return Unscored


def _stderr() -> Any:
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def _groups(root: Path) -> Groups:
    return groups_of(read_table(str(root / FOLDERS["ingest"]), ["id"]).schema)


def ours(root: Path, images: int, groups: Groups, variant: str = "default") -> dict[str, Any]:
    """One run of raysynth's stage in processes of its own."""
    from judge import accuracies, load_judge

    from raysynth.storage.tables import decode_images
    from raysynth.synthesis.shards import read_shards

    with tempfile.TemporaryDirectory(prefix="raysynth-") as folder:
        work = f"{folder}/stage"
        command = [sys.executable, __file__, "--child", str(root), str(images), work, variant]
        cost, output = run(command)
        facts = json.loads(output.splitlines()[-1])
        table = read_shards(work, ["image", "group"])
        pixels = decode_images(table["image"])
        judged = accuracies(load_judge(), pixels, table["group"].to_numpy(), groups)
    used = facts["utilisation"]
    return {
        "cost": cost,
        "images": images,
        "images_per_second": round(images / used["seconds"], 1),
        "images_per_second_cold": round(images / cost.wall_seconds, 1),
        "judge": judged,
        "utilisation": used,
    }


def peer(
    root: Path, groups: Groups, config: Config, per_adapter: int, *options: str
) -> dict[str, Any]:
    """One run of the pipeline in a process of its own, judged."""
    from judge import accuracies, load_judge

    from raysynth.models.sources import resolve

    group_of = {adapter.name: adapter.group for adapter in read_adapters(f"{root}/adapters")}
    with tempfile.TemporaryDirectory(prefix="raysynth-") as out:
        command = [sys.executable, str(PEER), str(root / "adapters"), out]
        command += ["--base", resolve(config.base.name), "--images", str(per_adapter)]
        command += ["--guidance", str(recipe_of(config).guidance_scale), *options]
        cost, output = run(command, **QUIET, OMP_NUM_THREADS=str(len(os.sched_getaffinity(0))))
        files = sorted(Path(out).glob("*.png"))
        pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    facts = json.loads(output.splitlines()[-1])
    group = np.array([group_of[file.stem.rsplit("-", 1)[0]] for file in files])
    return {
        "cost": cost,
        "images": facts["images"],
        "images_per_second": round(facts["images"] / facts["seconds"], 2),
        "judge": accuracies(load_judge(), pixels, group, groups),
    }


def fastest(root: Path, groups: Groups, config: Config, *options: str) -> tuple[list[str], dict]:
    """The num_images_per_prompt that serves a peer best, tried on two adapters."""
    rates = {}
    for count in PER_CALL:
        call = ["--per-call", str(count), "--only", "2"]
        rates[count] = peer(root, groups, config, 100, *call, *options)["images_per_second"]
        print(f"  {count} per call: {rates[count]} images/s", file=sys.stderr)
    return ["--per-call", str(max(rates, key=rates.__getitem__))], rates


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median rate, with costs over all."""
    middle = sorted(results, key=lambda r: r["images_per_second"])[len(results) // 2]
    rates = [r["images_per_second"] for r in results]
    cost = medians([r["cost"] for r in results])
    return {**middle, "cost": cost, "rates": rates}


def compare(
    root: Path, quick: bool, repeats: int, groups: Groups, config: Config
) -> dict[str, Any]:
    """All rows of the table; what is compared is taken in turns."""
    images = QUICK_IMAGES if quick else IMAGES
    steps = ["--steps", str(config.synthesis.steps)]
    call, swept = (["--per-call", "50"], {}) if quick else fastest(root, groups, config, *steps)
    whole = images // ADAPTERS
    mine, compiled, same = [], [], []
    for _ in range(repeats):
        mine.append(ours(root, images, groups))
        if not quick:
            compiled.append(ours(root, images, groups, "compiled"))
        same.append(peer(root, groups, config, whole, *call, *steps))
    each, adapters = (50, "1") if quick else (100, "6")
    rows = {
        "raysynth": summary(mine),
        "pipeline, same solver and steps": summary(same) | {"per_call": swept},
        "pipeline, defaults": summary(
            [peer(root, groups, config, each, *call, "--only", adapters)]
        ),
    }
    if not quick:
        rows["raysynth, compiled"] = summary(compiled)
        rows["raysynth, unscored"] = summary([ours(root, images, groups, "unscored")])
        for name, extra in (("SDPA", []), ("plain attention", ["--plain-attention"])):
            tuned = peer(root, groups, config, whole, *call, *steps, "--tuned", *extra)
            rows[f"pipeline, tuned: bfloat16, fused, {name}"] = summary([tuned])
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--run", type=Path, help="folder of the run; default: new")
    options.add_argument("--child", nargs=4, metavar=("RUN", "IMAGES", "FOLDER", "VARIANT"))
    arguments = options.parse_args()
    if arguments.child:
        root, images, work, variant = arguments.child
        child(Path(root), int(images), work, variant)
        return
    root, _, groups = prepare(arguments.run, arguments.quick)
    config = load_config(None, knobs(root, IMAGES))
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    rows = compare(root, arguments.quick, repeats, groups, config)
    mine, same = rows["raysynth"], rows["pipeline, same solver and steps"]
    default = rows["pipeline, defaults"]
    by_default = mine["images_per_second"] / default["images_per_second"]
    by_steps = {
        name: round(rows[name]["images_per_second"] / same["images_per_second"], 2)
        for name in ("raysynth", "raysynth, compiled")
        if name in rows
    }
    lost = same["judge"]["both"] - min(rows[name]["judge"]["both"] for name in by_steps)
    allowed = QUICK_JUDGE_BAR if arguments.quick else JUDGE_BAR
    bar = SAME_STEPS_BAR
    floor = QUICK_SAME_STEPS.get(precision(), bar) if arguments.quick else bar
    numbers = {
        "rows": rows,
        "ratio_to_defaults": round(by_default, 2),
        "ratio_at_same_steps": by_steps,
        "judge_accuracy_lost": round(lost, 4),
    }
    bars = {
        f"images/s over the pipeline's defaults >= {DEFAULTS_BAR}": by_default >= DEFAULTS_BAR,
        **{
            f"{name}: images/s over the same solver and steps >= {floor}": ratio >= floor
            for name, ratio in by_steps.items()
        },
        f"judge accuracy not lower by more than {allowed}": lost <= allowed,
    }
    finish("generation", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
