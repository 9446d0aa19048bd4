"""Stable Diffusion 1.5's shapes on an accelerator: many adapters against one after another.

    python benchmarks/accelerator.py [--quick] [--repeats N] [--storage FOLDER]

The published configuration with random weights (UNet, text encoder, autoencoder), 512 pixels, LoRA
of rank 8 on all targets, bfloat16, torch's fused attention on every side. Nothing but the device's
work and the Python that feeds it is timed: models are loaded, images and prompts encoded.

* Training: a step of P adapters x ROWS images by the worker's own code (`train_pack`), against
  PEFT's step of one adapter (weights of the base in bfloat16, of the adapter in float32, the same
  fused AdamW) times P. The peak of the device's memory is compared to the estimate packing uses.
* Generation: IMAGES images of ADAPTERS adapters, STEPS guided steps, decoded: ImageGenerator with
  batches that an adapter fills alone and with mixed ones, against diffusers' pipeline adapter by
  adapter (load_lora_weights, one prompt, BATCH images per call), in bfloat16 as it comes, with
  fused adapters, and in its default float32.

* Families (`--only families`): published shapes of a UNet and of a transformer that are larger,
  FAMILIES_SIDE pixels, a step of 8 adapters against PEFT's one by one (`families.py`), with
  gradient checkpointing. Bar: 3 times PEFT's rate, five repetitions.

--quick: the tiny base, few sizes; runs on a CPU too. Sides take turns, medians are printed.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import families
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from measure import finish, parser
from real_shapes import add_peft, write_model
from torch.nn import functional as F
from workload import Workload, clock, make_workload

from raysynth.adapters import banks
from raysynth.finetune import memory, training
from raysynth.models.base import load_base
from raysynth.models.device import pick_device
from raysynth.models.family import FAMILIES
from raysynth.models.sources import resolve
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.task import Drawing

ROWS = 4
"""Images of each adapter in a training step."""
TRAINED = ((1, False), (4, False), (8, False), (4, True), (16, True))
"""Adapters at once, and whether activations are checkpointed."""
ADAPTERS, IMAGES, BATCH, STEPS, GUIDANCE = 8, 128, 16, 20, 7.5
MIXES = (16, 8, 4, 2)
"""Rows of one adapter in a batch of BATCH."""
QUICK_STEPS = 2
WARM, TIMED = 3, 20
ESTIMATE = 0.15
LARGE, FAMILIES_SIDE = ("stable_diffusion_xl", "z_image"), 512


def sections(model: str, checkpointing: bool, solver_steps: int = STEPS) -> dict[str, Any]:
    """The configuration that all parts share."""
    return {
        "base": {"name": model, "dtype": "bfloat16"},
        "finetune": {
            "steps": WARM + TIMED,
            "batch_size": ROWS,
            "precision": "bfloat16",
            "gradient_checkpointing": checkpointing,
            "checkpoint_steps": 1000,
            "memory_share": 0.95,
        },
        "synthesis": {
            "steps": solver_steps,
            "guidance_scale": GUIDANCE,
            "gaussian_above": 1.0,
            "batch_size": BATCH,
        },
        "resources": {"workers": 1},
    }


def grouped(work: Workload, adapters: int, out: Path) -> dict[str, Any]:
    """Seconds of a step of `adapters` adapters at once, and the memory it took."""
    seconds, loops, step = [], [], training.step
    device = pick_device(work.config.base.device)

    def timed(loop: training.Loop, *given: Any) -> Any:
        begin = clock(device)
        losses = step(loop, *given)
        seconds.append(clock(device) - begin)
        loops.append(loop)
        return losses

    training.step = timed
    failed: dict[str, str] = {}

    def whole() -> None:
        failed.update(training.train_pack(work.pack(out, adapters)))

    try:
        peak = memory.peak_bytes(device, whole)
    finally:
        training.step = step
    if failed:
        raise SystemExit(f"accelerator: {failed}")
    if loops[0].slots < adapters:
        return {"fits": str(loops[0].fit)}
    footprint = loops[0].fit.footprint
    estimated = footprint.of(adapters, adapters * ROWS) if footprint else None
    return {
        "seconds": median(seconds[WARM:]),
        "peak_gb": peak / 1e9,
        "estimated_gb": None if estimated is None else estimated / 1e9,
    }


def alone(work: Workload) -> dict[str, Any]:
    """Seconds of PEFT's step of one adapter on its own."""
    settings = work.config.finetune
    base = load_base(work.config.base, ("model",))
    unet, device = base.model, base.device
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()
    add_peft(unet, settings)
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    dice = torch.Generator(device).manual_seed(0)
    shape = (ROWS, *base.latent_shape)
    width = unet.config.cross_attention_dim
    states = torch.randn(ROWS, 77, width, generator=dice, device=device)
    seconds = []

    def step() -> None:
        noise = torch.randn(shape, generator=dice, device=device)
        with base.autocast():
            predicted = unet(noise, torch.full((ROWS,), 500.0, device=device), states).sample
        F.mse_loss(predicted.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def steps() -> None:
        for _ in range(WARM + TIMED):
            begin = clock(device)
            step()
            seconds.append(clock(device) - begin)

    peak = memory.peak_bytes(device, steps)
    return {"seconds": median(seconds[WARM:]), "peak_gb": peak / 1e9}


def train(storage: Path, model: str, quick: bool, repeats: int) -> dict[str, Any]:
    """All training rows: what a step costs, together and one after another."""
    found: dict[str, Any] = {}
    for adapters, checkpointing in TRAINED[:1] if quick else TRAINED:
        # The listing's adapters come in fours.
        work = make_workload(storage, -(-adapters // 4) * 4, **sections(model, checkpointing))
        ours, theirs = [], []
        for number in range(repeats):
            out = storage / f"trained-{adapters}-{checkpointing}-{number}"
            ours.append(grouped(work, adapters, out))
            free()
            if "fits" in ours[0]:
                break
            theirs.append(alone(work))
            free()
        name = f"{adapters} adapters x {ROWS} rows" + (", checkpointing" if checkpointing else "")
        if "fits" in ours[0]:
            found[name] = ours[0]
            continue
        mine, peft = (median(one["seconds"] for one in side) for side in (ours, theirs))
        found[name] = {
            "step_seconds": round(mine, 4),
            "images_per_second": round(adapters * ROWS / mine, 1),
            "peft_step_seconds": round(peft, 4),
            "ratio": round(adapters * peft / mine, 2),
            "ratios": [
                round(adapters * b["seconds"] / a["seconds"], 2)
                for a, b in zip(ours, theirs, strict=True)
            ],
            "peak_gb": round(ours[0]["peak_gb"], 2),
            "peft_peak_gb": round(theirs[0]["peak_gb"], 2),
        }
        if estimated := ours[0]["estimated_gb"]:
            found[name]["estimated_gb"] = round(estimated, 2)
            found[name]["estimate_over_peak"] = round(estimated / ours[0]["peak_gb"], 3)
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    return found


def generated(storage: Path, model: str, quick: bool, repeats: int) -> dict[str, Any]:
    """Images per second of every way to make them, in turns."""
    folder = storage / "adapters"
    steps, mixes = (QUICK_STEPS, MIXES[::2]) if quick else (STEPS, MIXES)
    settings = sections(model, not quick, steps)
    settings["finetune"]["steps"] = 1
    work = make_workload(storage, ADAPTERS, **settings)
    pack = work.pack(folder)
    failed = training.train_pack(pack)
    if failed:
        raise SystemExit(f"accelerator: {failed}")
    free()
    names = [job.name for job in pack.jobs]
    images = BATCH if quick else IMAGES
    ways: dict[str, Callable[[], float]] = {}
    generator = ImageGenerator(Drawing.of(work.config), str(folder), names)
    device = generator.base.device

    def ours(rows: int, fold: int) -> float:
        """`rows` of each adapter in every batch; from `fold` on an adapter is folded in alone."""
        kept, banks.FOLD_ROWS = banks.FOLD_ROWS, fold
        order = [names[n // rows % ADAPTERS] for n in range(images)]
        begin = clock(device)
        for first in range(0, images, BATCH):
            adapters = order[first : first + BATCH]
            prompts = ["a photo of a coat on grass"] * len(adapters)
            generator(prompts, [""] * len(adapters), adapters, range(first, first + len(adapters)))
        banks.FOLD_ROWS = kept
        return images / (clock(device) - begin)

    for rows in mixes:
        ways[f"raysynth, {rows} rows per adapter, folded"] = lambda rows=rows: ours(rows, 1)
        if rows < BATCH:
            ways[f"raysynth, {rows} rows per adapter, mixed"] = lambda rows=rows: ours(rows, 10**9)

    def pipeline(dtype: torch.dtype) -> StableDiffusionPipeline:
        pipe = StableDiffusionPipeline.from_pretrained(resolve(model), dtype=dtype).to(device)
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def theirs(pipe: StableDiffusionPipeline, fuse: bool) -> float:
        each = images // ADAPTERS
        begin = clock(device)
        for number, name in enumerate(names):
            pipe.load_lora_weights(str(folder / name))
            if fuse:
                pipe.fuse_lora()
            for first in range(0, each, BATCH):
                pipe(
                    "a photo of a coat on grass",
                    num_inference_steps=steps,
                    guidance_scale=GUIDANCE,
                    num_images_per_prompt=min(BATCH, each - first),
                    generator=torch.Generator("cpu").manual_seed(number),
                    output_type="np",
                )
            if fuse:
                pipe.unfuse_lora()
            pipe.unload_lora_weights()
        return images / (clock(device) - begin)

    half, full = pipeline(torch.bfloat16), pipeline(torch.float32)
    ways["pipeline, bfloat16"] = lambda: theirs(half, False)
    ways["pipeline, bfloat16, fused adapters"] = lambda: theirs(half, True)
    ways["pipeline, float32 (its default)"] = lambda: theirs(full, False)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(1 if quick else 0, repeats + 1):
        for name, way in ways.items():
            rate = way()
            if number:  # the first round warms up
                rates[name].append(rate)
            print(f"{name}: {rate:.2f} images/s", file=sys.stderr, flush=True)
    return {
        name: {"images_per_second": round(median(taken), 2), "all": [round(x, 2) for x in taken]}
        for name, taken in rates.items()
    }


def compare_families(repeats: int, quick: bool) -> None:
    """Both sides of `families.py` on large shapes; with `quick` on tiny ones."""
    found = {}
    for name in LARGE:
        if quick:
            found[name] = families.tiny(name, repeats)
        else:
            found[name] = families.published(FAMILIES[name], FAMILIES_SIDE, repeats)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
        free()
    judged = {} if quick else found
    bars = {f"{name}: 3 times PEFT's rate": each["ratio"] >= 3 for name, each in judged.items()}
    finish("accelerator_families", {"pixels": FAMILIES_SIDE, **found}, bars, quick)


def free() -> None:
    """Give back what the last side held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--storage", type=Path, default=None)
    options.add_argument("--only", choices=("training", "generation", "families"), default=None)
    arguments = options.parse_args()
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="raysynth-accelerator-"))
    repeats = arguments.repeats or (1 if arguments.quick else 3)
    model = "embedded"
    if not arguments.quick:
        model = str(storage / "model")
        if not Path(model).exists():
            write_model(Path(model), whole=True)
    numbers: dict[str, Any] = {}
    if arguments.only == "families":
        compare_families(arguments.repeats or 5, arguments.quick)
    if arguments.only != "generation":
        numbers["training"] = train(storage, model, arguments.quick, repeats)
    if arguments.only != "training":
        numbers["generation"] = generated(storage, model, arguments.quick, repeats)
    bars = {
        f"estimate within 15 %: {name}": abs(row["estimate_over_peak"] - 1) <= ESTIMATE
        for name, row in numbers.get("training", {}).items()
        if "estimate_over_peak" in row
    }
    finish("accelerator", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
