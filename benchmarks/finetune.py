"""Fine-tuning 12 adapters: raysynth against one process each, and against one TorchTrainer each.

    python benchmarks/finetune.py [--quick] [--storage FOLDER]

Three sides train the same adapters (images, prompts, steps, batch, rank, targets, precision):
`raysynth` is the pipeline's stage as a user starts it, Ray included; `loop` is a plain diffusers +
PEFT + accelerate loop, one process after another (peers/lora_loop.py), and `tuned loop` the same
with everything encoded beforehand and the faster attention kernel; `trainers` is one TorchTrainer
per adapter, two at a time. Bars: raysynth takes at most 1/3 of the loop's wall time and at most 1/2
of the trainers', and the judge sees what was asked for in its images at least as often, less a
point. --quick trains less, without trainers.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from judge import accuracies, load_judge
from measure import Cost, finish, medians, parser, precision, run
from workload import jobs_of

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.finetune.engines import precision_of
from raysynth.finetune.jobs import Job
from raysynth.finetune.material import read_images
from raysynth.generators.recipe import STEPS, recipe_of
from raysynth.groups.groups import Groups
from raysynth.method import FOLDERS
from raysynth.models.family import FAMILIES, USUAL, layers_of
from raysynth.models.sources import resolve
from raysynth.storage.tables import encode_png, groups_of, read_table

HERE = Path(__file__).parent
JOBS = HERE.parent / "jobs"
SETTINGS = ["name=prepared", "dataset.severity=0.9", "clustering.k=3", "clustering.min_size=20"]
QUICK = [
    "dataset.severity=0.5",  # twelve clusters of no less than `min_size`
    "dataset.train_images=600",
    "dataset.validation_images=40",
    "dataset.test_images=40",
    "finetune.steps=24",
]
LOOP_BAR, TRAINERS_BAR = 1 / 3, 1 / 2
QUICK_BARS = {"bfloat16": 0.4, "float32": 0.45}
"""Wall time over the loop's that `make bench` holds on to: with few steps the start weighs more."""
IMAGES = 64
"""Judged images per adapter."""


def prepare(storage: Path, overrides: list[str]) -> tuple[Config, Groups, list[Job]]:
    """Real table and clusters, once; images of each cluster as PNG files for the plain loop."""
    overrides = [f"storage_path={storage}", *SETTINGS, *overrides]
    run([sys.executable, str(JOBS / "cluster.py"), *overrides])
    config = load_config(None, overrides)
    root = storage / config.name
    real = str(root / FOLDERS["ingest"])
    groups = groups_of(read_table(real, ["id"]).schema)
    clusters = root / FOLDERS["clustering"]
    table = read_table(str(clusters), files=[str(clusters / "clusters.parquet")])
    jobs = jobs_of(config, table, groups)
    for job in jobs:
        folder = storage / "png" / job.name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = read_images(real, list(job.ids), 32)
        for number, image in enumerate(pixels):
            (folder / f"{number:05d}.png").write_bytes(encode_png(image))
    return config, groups, jobs


def ours(storage: Path, name: str, overrides: list[str]) -> Cost:
    """The fine-tuning stage in a fresh copy of the prepared run; adapters below `name`."""
    root = storage / name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(storage / "prepared", root)
    settings = [f"storage_path={storage}", *SETTINGS, f"name={name}", *overrides]
    return run([sys.executable, str(JOBS / "finetune.py"), *settings])[0]


def loop(storage: Path, job: Job, config: Config, out: str, tuned: bool) -> Cost:
    """One adapter in a process of its own."""
    settings = config.finetune
    layers = layers_of(FAMILIES[USUAL], settings.targets)
    names = [name for ends in layers.values() for name in ends]
    asked = {
        "steps": job.steps,
        "batch_size": job.batch,
        "rank": settings.rank,
        "alpha": settings.alpha,
        "learning_rate": job.learning_rate,
        "targets": names,
        "precision": precision_of(config.finetune, config.base),
    }
    command = [sys.executable, str(HERE / "peers" / "lora_loop.py"), "--settings"]
    command += [json.dumps(asked), "--base", resolve(config.base.name), "--prompt"]
    command += [job.prompts[job.group], "--images", str(storage / "png" / job.name)]
    command += ["--out", str(storage / out / job.name), *(["--tuned"] if tuned else [])]
    return run(command)[0]


def judged(adapters: Path, config: Config, groups: Groups, jobs: list[Job]) -> dict[str, float]:
    """What the judge sees in images of all adapters, made by diffusers alone."""
    pipeline = StableDiffusionPipeline.from_pretrained(resolve(config.base.name))
    pipeline.unet.set_attn_processor(AttnProcessor())
    pipeline.set_progress_bar_config(disable=True)
    half = precision_of(config.finetune, config.base) == "bf16"
    pixels = []
    for job in jobs:
        pipeline.load_lora_weights(str(adapters / job.name))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            images = pipeline(
                job.prompts[job.group],
                num_images_per_prompt=IMAGES,
                num_inference_steps=STEPS,
                guidance_scale=recipe_of(config).guidance_scale,
                generator=torch.Generator().manual_seed(0),
                output_type="np",
            ).images
        pixels.append((images * 255).round().astype(np.uint8))
        pipeline.unload_lora_weights()
    group = np.repeat([job.group for job in jobs], IMAGES)
    return accuracies(load_judge(), np.concatenate(pixels), group, groups)


def total(costs: list[Cost], adapters: int) -> Cost:
    """One after another: the median process, as often as there are adapters."""
    return Cost(
        adapters * median(cost.wall_seconds for cost in costs),
        adapters * median(cost.cpu_seconds for cost in costs),
        max(cost.peak_gb for cost in costs),
    )


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None)
    options.add_argument("--loops", type=int, default=None, help="adapters that the loops train")
    arguments = options.parse_args()
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-finetune-"))
    overrides = QUICK if arguments.quick else []
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    config, groups, jobs = prepare(storage, overrides)
    processes = jobs[: arguments.loops or (2 if arguments.quick else len(jobs))]
    found: dict[str, list[Cost]] = {"raysynth": [], "loop": [], "tuned loop": [], "trainers": []}
    share = -(-len(processes) // repeats)
    alone = [*overrides, "finetune.adapters_per_worker=1"]

    def measured(side: str, cost: Cost) -> None:
        found[side].append(cost)
        print(f"{side}: {cost.wall_seconds:.1f} s, {cost.cpu_seconds:.0f} CPU s", file=sys.stderr)

    for number in range(repeats):  # in turns, so that what else the machine does hits all sides
        print(f"repetition {number + 1} of {repeats}", file=sys.stderr)
        measured("raysynth", ours(storage, "grouped", overrides))
        for job in processes[number * share : (number + 1) * share]:
            measured("loop", loop(storage, job, config, "loop", tuned=False))
            if not arguments.quick:
                measured("tuned loop", loop(storage, job, config, "tuned", tuned=True))
        if not arguments.quick:
            measured("trainers", ours(storage, "trainers", alone))
    numbers: dict[str, Any] = {"adapters": len(jobs), "steps": jobs[0].steps}
    numbers |= {name: medians(costs) for name, costs in found.items() if costs}
    loops = {name: name.split()[0] for name in ("loop", "tuned loop") if found[name]}
    sums = {name: total(found[name], len(jobs)) for name in loops}
    mine = median(cost.wall_seconds for cost in found["raysynth"])
    cpu = median(cost.cpu_seconds for cost in found["raysynth"])
    for name, cost in sums.items():
        numbers[f"all with {name}"] = {k: round(v, 2) for k, v in vars(cost).items()}
        numbers[f"wall, raysynth / {name}"] = round(mine / cost.wall_seconds, 3)
        numbers[f"cpu, raysynth / {name}"] = round(cpu / cost.cpu_seconds, 3)
    bar = QUICK_BARS.get(precision(), LOOP_BAR) if arguments.quick else LOOP_BAR
    bars = {f"wall <= {bar:.2f} of the loop": mine <= bar * sums["loop"].wall_seconds}
    if not arguments.quick:
        alone_wall = median(cost.wall_seconds for cost in found["trainers"])
        numbers["wall, raysynth / trainers"] = round(mine / alone_wall, 3)
        trainers = f"wall <= {TRAINERS_BAR:.2f} of one TorchTrainer each"
        bars[trainers] = mine <= TRAINERS_BAR * alone_wall
    outputs = {"raysynth": storage / "grouped" / FOLDERS["finetune"]}
    outputs |= {name: storage / out for name, out in loops.items()}
    seen = {name: judged(out, config, groups, processes) for name, out in outputs.items()}
    numbers["judge"] = seen
    allowed = 0.06 if arguments.quick else 0.01  # quick: 128 images, two standard errors
    bars["judge not lower"] = seen["raysynth"]["both"] >= seen["loop"]["both"] - allowed
    finish("finetune", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
