"""Full-weight fine-tunings (DreamBooth proper): in one worker, and one process per model.

    python benchmarks/full_weights.py [--quick] [--storage FOLDER]

Both sides train by the code of Ray's workers: `shared` trains its models one after another in one
process, `separate` starts a process for each. Parts of a process are timed apart: imports, loading
the base, encoding images and prompts, steps, saving. `encoding` compares it once per model with
encoding every batch anew, as plain scripts do. `store` loads the base's UNet in Ray workers from
its file and from Ray's object store. How many models fit side by side is computed from measured
bytes. Bars: less CPU per model than in separate processes; the weights come out the same.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from diffusers import UNet2DConditionModel
from measure import Cost, finish, medians, parser, run
from safetensors.torch import load_file
from workload import Workload, clock, make_workload, pack_of

from raysynth.config.config import Config
from raysynth.finetune import memory, training
from raysynth.finetune.material import encode_images, read_images
from raysynth.models.base import load_base
from raysynth.models.device import pick_device
from raysynth.models.family import FAMILIES, USUAL
from raysynth.planning.denoiser_cost import unet_cost

IMPORTED = time.process_time()
MODELS = 4
PARTS = {
    "load_base": "loading the base",
    "build_trainee": "loading the base",
    "prepare": "encoding images and prompts",
    "step": "steps",
    "finish": "saving",
}
"""Functions of the training loop -> the part of the work that they are."""
STATES = 16
"""Bytes per parameter: value, gradient and two moments, float32; the base waits in host memory."""
GPUS_GB = (24, 40, 80)


def workload(storage: Path, steps: int) -> Workload:
    """As many models as are trained, in the engine for full weights.

    The attention kernel is set: one that is measured may differ between two processes.
    """
    kernel = "plain" if pick_device("auto").type == "cpu" else "sdpa"
    settings = {"engine": "full", "steps": steps, "batch_size": 12, "learning_rate": 2e-3}
    settings |= {"max_passes": 1e9, "ema": 0.0, "prior_weight": 0.0}
    return make_workload(storage, MODELS, finetune=settings, base={"attention": kernel})


def one(storage: Path, first: int, count: int, steps: int, out: str) -> dict[str, Any]:
    """Train some models in this process: CPU seconds of each part, and its memory."""
    torch.set_num_threads(1)
    seconds: Counter[str] = Counter(imports=IMPORTED)
    work = workload(storage, steps)
    device = pick_device(work.config.base.device)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            begin = clock(device)
            result = function(*given, **named)
            seconds[part] += clock(device) - begin
            return result

        return call

    for name, part in PARTS.items():
        setattr(training, name, timed(part, getattr(training, name)))
    jobs = work.jobs[first : first + count]
    pack = pack_of(work.config, jobs, work.groups, work.real, str(storage / out))
    failed: dict[str, str] = {}
    peak = memory.peak_bytes(device, lambda: failed.update(training.train_pack(pack)))
    if failed:
        raise SystemExit(f"full_weights: {failed}")
    return {"parts": dict(seconds), "peak_bytes": peak}


def in_process(storage: Path, *asked: Any) -> tuple[Cost, dict[str, Any]]:
    """`one` in a process of its own."""
    command = [sys.executable, __file__, "--storage", str(storage), "--one", json.dumps(asked)]
    cost, output = run(command, OMP_NUM_THREADS="1")
    return cost, json.loads(output.splitlines()[-1])


def against_processes(
    storage: Path, steps: int, repeats: int, singles: int
) -> tuple[dict[str, Any], dict[str, bool]]:
    """One worker for all models against one process for each, in turns."""
    shared, separate = [], []
    for number in range(repeats):
        print(f"repetition {number + 1} of {repeats}", file=sys.stderr)
        shared.append(in_process(storage, 0, MODELS, steps, f"shared-{number}"))
        separate += [
            in_process(storage, model, 1, steps, f"separate-{number}") for model in range(singles)
        ]
    cpu = median(cost.cpu_seconds for cost, _ in shared) / MODELS
    alone = median(cost.cpu_seconds for cost, _ in separate)
    wall = median(cost.wall_seconds for cost, _ in shared) / MODELS
    numbers = {
        "models": MODELS,
        "steps": steps,
        "shared, per model": {"cpu_seconds": round(cpu, 2), "wall_seconds": round(wall, 2)},
        "separate, per model": medians([cost for cost, _ in separate]),
        "shared : separate, cpu": round(cpu / alone, 3),
        "shared : separate, wall": round(
            wall / median(cost.wall_seconds for cost, _ in separate), 3
        ),
        "cpu seconds of a process's parts": {
            name: {
                part: round(median(each["parts"].get(part, 0.0) for _, each in found), 3)
                for part in ("imports", *dict.fromkeys(PARTS.values()))
            }
            for name, found in ((f"shared, {MODELS} models", shared), ("separate, 1", separate))
        },
        "peak_mb": round(median(each["peak_bytes"] for _, each in separate) / 1e6),
    }
    bars = {
        "less CPU per model than one process each": cpu < alone,
        "same weights in both": all(
            same_weights(storage, f"shared-{number}", f"separate-{number}")
            for number in range(repeats)
        ),
    }
    return numbers, bars


def same_weights(storage: Path, one: str, other: str) -> bool:
    """Whether the models that both sides trained came out equal, bit for bit."""

    def read(side: str, name: str) -> dict[str, torch.Tensor]:
        (file,) = (storage / side / name / "unet").glob("*.safetensors")
        return load_file(file)

    names = [path.name for path in (storage / other).iterdir()]
    pairs = [(read(one, name), read(other, name)) for name in names]
    return bool(pairs) and all(
        torch.equal(tensor, theirs[key]) for mine, theirs in pairs for key, tensor in mine.items()
    )


def encoding(storage: Path, steps: int) -> dict[str, float]:
    """CPU seconds per model of encoding images and prompts once, and at every step."""
    torch.set_num_threads(1)
    work = workload(storage, steps)
    job = work.jobs[0]
    base = load_base(work.config.base, ("vae", "text"))
    pixels = read_images(work.real, job.ids, base.image_size)

    def taken(images: int) -> float:
        place = torch.arange(images).numpy() % len(pixels)
        found = []
        for _ in range(5):
            begin = clock(base.device)
            encode_images(base, pixels, place, place % 2 == 0)
            base.condition([*job.prompts.values(), ""])
            found.append(clock(base.device) - begin)
        return median(found)

    once, each = taken(2 * len(pixels)), taken(job.batch)
    return {
        "once per model": round(once, 3),
        f"in each of {steps} steps": round(each * steps, 3),
        "ratio": round(each * steps / once, 1),
    }


def side_by_side(storage: Path, steps: int) -> dict[str, Any]:
    """Two workers at once against one, same models."""
    alone, _ = in_process(storage, 0, MODELS, steps, "one-worker")
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(in_process, storage, start, MODELS // 2, steps, f"worker-{start}")
            for start in (0, MODELS // 2)
        ]
        costs = [half.result()[0] for half in halves]
    return {
        "one worker": {"wall_seconds": round(alone.wall_seconds, 2), "gb": round(alone.peak_gb, 2)},
        "two workers": {
            "wall_seconds": round(time.monotonic() - begin, 2),
            "gb": round(sum(cost.peak_gb for cost in costs), 2),
        },
    }


def per_gpu() -> dict[str, Any]:
    """Stable Diffusion 1.5 models side by side on a GPU: computed from shapes, never run."""
    family = FAMILIES[USUAL]
    usual = family.published
    cost = unet_cost(usual.network, None, 0, True, usual.shape.tokens, family)
    states = cost.parameters * (STATES + 2) / 1e9  # autocast keeps 2 bytes of each for a step
    row = cost.activations / 1e9
    return {
        "computed, not run": "gradient checkpointing, fused attention, 90 % of the memory",
        "states_gb": round(states, 1),
        "activations_gb_per_image": round(row, 2),
        "models, by images per step": {
            f"{size} GB": {rows: int(0.9 * size // (states + rows * row)) for rows in (1, 4)}
            for size in GPUS_GB
        },
    }


def store(name: str, repeats: int) -> dict[str, Any]:
    """Loading the base's UNet in fresh Ray workers: from its file, and from the object store."""
    import ray

    section = Config.model_validate({"base": {"name": name, "dtype": "float32"}}).base
    unet = load_base(section, ("model",)).model
    state = {key: value.numpy() for key, value in unet.state_dict().items()}
    size = sum(array.nbytes for array in state.values())
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=max(int(1.2 * size), 100_000_000),
    )
    begin = time.perf_counter()
    kept = ray.put(state)
    put = time.perf_counter() - begin
    task = ray.remote(num_cpus=1, max_calls=1)(_load)  # max_calls: a fresh process every time
    found: dict[str, list[dict[str, float]]] = {"file": [], "object store": []}
    for _ in range(repeats):
        found["file"].append(ray.get(task.remote(section, dict(unet.config), None)))
        found["object store"].append(ray.get(task.remote(section, dict(unet.config), [kept])))
    ray.shutdown()
    return {
        "megabytes": round(size / 1e6, 1),
        "put_seconds": round(put, 3),
        **{
            way: {what: round(median(one[what] for one in taken), 3) for what in taken[0]}
            for way, taken in found.items()
        },
    }


def _load(section: Any, shape: dict[str, Any], kept: list[Any] | None) -> dict[str, float]:
    """Seconds and the worker's own memory that a ready UNet takes, libraries apart."""
    import ray
    from accelerate import init_empty_weights

    torch.set_num_threads(1)
    load_base(section, ("scheduler",))  # imports
    before, begin, spent = _own_megabytes(), time.perf_counter(), time.process_time()
    if kept is None:
        unet = load_base(section, ("model",)).model
    else:
        with init_empty_weights():
            unet = UNet2DConditionModel.from_config(shape)
        arrays = ray.get(kept[0])
        unet.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, assign=True)
    took, cpu = time.perf_counter() - begin, time.process_time() - spent
    sum(parameter.sum() for parameter in unet.parameters())  # every page is read
    return {"seconds": took, "cpu_seconds": cpu, "own_mb": _own_megabytes() - before}


def _own_megabytes() -> float:
    return float(psutil.Process().memory_full_info().uss) / 1e6


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None)
    options.add_argument("--base", default="embedded", help="base that `store` loads")
    options.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.storage, *arguments.one)))
        return
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-full-"))
    for left in storage.glob("*-*"):
        if not left.name.startswith("real"):
            shutil.rmtree(left)
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    steps, singles = (15, 1) if arguments.quick else (120, 2)
    workload(storage, steps)
    numbers, bars = against_processes(storage, steps, repeats, singles)
    if not arguments.quick:  # these have no bar
        numbers["encoding, cpu seconds per model"] = encoding(storage, steps)
        numbers["side by side, tiny base"] = side_by_side(storage, steps)
        numbers["side by side, Stable Diffusion 1.5"] = per_gpu()
        numbers[f"store, {arguments.base}"] = store(arguments.base, max(repeats, 3))
    finish("full_weights", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
