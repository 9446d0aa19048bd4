"""The generation stage without its models: memory, time and what holds up an accelerator.

    python benchmarks/streaming.py [--quick]

The real stage runs (plan, Ray Data, PNG, Parquet, checkpoint, shards), with a stand-in for the
models, each run in processes of its own:

* growth: 2,000, 20,000 and 200,000 images of 32 pixels, drawn at once: peak memory of all
  processes together and seconds.
* accelerator: two actors whose stand-in sleeps as long as an accelerator would compute, images of
  512 pixels; the shares of UNet, decoder and CLIP are those of Stable Diffusion 1.5 with CLIP
  ViT-B/32, counted here. No other part may keep the UNet waiting.

Numbers are medians of the repetitions, which run all sizes in turns.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from measure import finish, parser, run

from raysynth.config.files import load_config
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.scoring.columns import scores_of
from raysynth.scoring.scorer import USUAL
from raysynth.synthesis.task import Task

GROUPS = Groups(
    ("pullover", "coat"), ("grass", "gravel"), ("pullover", "coat"), ("grass", "gravel")
)
GROWTH, QUICK_GROWTH = (2_000, 20_000, 200_000), (4_000, 12_000)
MEMORY_BAR = 1.2  # peak of the largest run over that of the smallest
TIME_BAR = 1.25  # seconds per image of the largest run over those of the one before
UNET_BAR = 0.9
STEPS = 25
SECONDS_PER_IMAGE = 0.25  # of one actor's device, all parts together
BATCH, SIDE = 16, 512


class TinySampler:
    """Draws 32-pixel images as fast as it can."""

    side = 32

    def __init__(self, task: Task) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(40, 216, (4, 9, 9, 3))
        photo = np.stack([_enlarged(image, self.side) for image in coarse])
        self.photos = photo.clip(0, 239).astype(np.uint8)
        self.grain = rng.integers(0, 16, photo[0].size * 2, np.uint8)

    def prepare(self, specs: pa.Table) -> np.ndarray:
        return specs["seed"].to_numpy()

    def denoise(self, seeds: np.ndarray) -> np.ndarray:
        return seeds

    def decode(self, seeds: np.ndarray, specs: pa.Table) -> np.ndarray:
        photo = self.photos[seeds % 4]
        starts = seeds % (len(self.grain) // 2)
        grain = [self.grain[start : start + photo[0].size] for start in starts]
        return photo + np.stack(grain).reshape(photo.shape)

    def score(self, images: np.ndarray, specs: pa.Table, _: Any = None) -> dict[str, pa.Array]:
        value = pa.array(np.full(len(images), 0.5, np.float32))
        return {field.name: value.cast(field.type) for field in scores_of(USUAL)}


class SleepingSampler(TinySampler):
    """The same with the pace of an accelerator and 512-pixel images."""

    side = SIDE

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.seconds = {k: SECONDS_PER_IMAGE * share for k, share in _flop_shares().items()}

    def denoise(self, seeds: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds["unet"] * len(seeds))
        return seeds

    def decode(self, seeds: np.ndarray, specs: pa.Table) -> np.ndarray:
        time.sleep(self.seconds["decode"] * len(seeds))
        return super().decode(seeds, specs)

    def score(self, images: np.ndarray, specs: pa.Table, _: Any = None) -> dict[str, pa.Array]:
        time.sleep(self.seconds["score"] * len(images))
        return super().score(images, specs)


def _enlarged(coarse: np.ndarray, side: int) -> np.ndarray:
    """Smooth like a photograph: what PNG can and cannot compress decides what encoding costs."""
    from PIL import Image

    image = Image.fromarray(coarse.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _flop_shares() -> dict[str, float]:
    """Shares of one 512-pixel image's FLOPs: STEPS guided UNet calls, one decoding, one scoring."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"), torch.no_grad():
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        ).eval()
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        ).eval()
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(hidden_size=768, intermediate_size=3072, patch_size=32)
        ).eval()
        latents, states = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768)
        calls = {
            "unet": lambda: unet(latents, torch.empty((), dtype=torch.long), states),
            "decode": lambda: vae.decode(latents),
            "score": lambda: clip(torch.empty(1, 3, 224, 224)),
        }
        flops = {}
        for name, call in calls.items():
            with FlopCounterMode(display=False) as counter:
                call()
            flops[name] = counter.get_total_flops() * (2 * STEPS if name == "unet" else 1)
    return {name: value / sum(flops.values()) for name, value in flops.items()}


def child(sampler: str, images: int, work: str) -> None:
    """One run of the stage; prints its facts."""
    from rich.console import Console

    from raysynth.cluster.session import Session
    from raysynth.progress import Progress
    from raysynth.synthesis.plan import plan_specs
    from raysynth.synthesis.shards import read_manifest
    from raysynth.synthesis.specs import Asked
    from raysynth.synthesis.stage import generate

    sleeping = sampler == "sleeping"
    config = load_config(
        None,
        [
            f"storage_path={work}",
            "generator=vanilla",
            f"synthesis.images_per_group={images // GROUPS.count}",
            *([f"synthesis.batch_size={BATCH}", "synthesis.rows_per_shard=100"] * sleeping),
        ],
    )
    plan = plan_specs(Asked.of(config, recipe_of(config)), [], GROUPS, [1] * GROUPS.count)
    kind = SleepingSampler if sleeping else TinySampler
    task = Task.of(config, GROUPS, "", (), "", sampler=kind)
    with (
        Progress(Console(file=sys.stderr, soft_wrap=True)) as progress,
        Session(config, work) as session,
    ):
        progress.stage(f"{sampler} {images}")
        session.start()
        start = time.monotonic()
        generate(task, plan, f"{work}/stage", progress)
        seconds = time.monotonic() - start
    manifest = read_manifest(f"{work}/stage")
    assert manifest is not None and manifest["rows"] == images
    left = list(Path(f"{work}/stage/blocks").glob("*.parquet"))
    stored = sum(p.stat().st_size for p in Path(f"{work}/stage").glob("group-*.parquet"))
    facts = {"stage_seconds": seconds, "kb_per_image": stored / images / 1e3}
    print(json.dumps(manifest["facts"] | facts | {"block_files_left": len(left)}))


def measured(sampler: str, images: int) -> dict[str, Any]:
    """Facts and cost of a run in a process of its own."""
    print(f"{sampler}: {images} images", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="raysynth-") as work:
        command = [sys.executable, __file__, "--child", sampler, str(images), work]
        cost, output = run(command)
    facts = json.loads(output.splitlines()[-1])
    return {
        "images": images,
        "wall_seconds": round(cost.wall_seconds, 1),
        "cpu_seconds": round(cost.cpu_seconds, 1),
        "peak_gb": round(cost.peak_gb, 3),
        "stage_seconds": round(facts["stage_seconds"], 1),
        "seconds_per_1000": round(1000 * facts["utilisation"]["seconds"] / images, 3),
        "kb_per_image": round(facts["kb_per_image"], 1),
        "block_files_left": facts["block_files_left"],
        "utilisation": facts["utilisation"],
    }


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of one case's repetitions, with the range of what the bars judge."""
    found: dict[str, Any] = {}
    for name, value in runs[0].items():
        values = [run[name] for run in runs]
        found[name] = middle(values) if isinstance(value, dict) else median(values)
        if name in ("peak_gb", "seconds_per_1000"):
            found[f"{name}_range"] = [min(values), max(values)]
    return found


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--child", nargs=3, metavar=("SAMPLER", "IMAGES", "FOLDER"))
    arguments = options.parse_args()
    if arguments.child:
        sampler, images, work = arguments.child
        child(sampler, int(images), work)
        return
    sizes = QUICK_GROWTH if arguments.quick else GROWTH
    cases = [*(("tiny", images) for images in sizes), ("sleeping", 128 if arguments.quick else 640)]
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    runs = [[measured(*case) for case in cases] for _ in range(repeats)]
    *growth, accelerator = (middle(list(of_case)) for of_case in zip(*runs, strict=True))
    memory = growth[-1]["peak_gb"] / growth[0]["peak_gb"]
    pace = growth[-1]["seconds_per_1000"] / growth[-2]["seconds_per_1000"]
    numbers = {
        "repetitions": repeats,
        "growth": growth,
        "peak_memory_ratio": round(memory, 3),
        "seconds_per_image_ratio": round(pace, 3),
        "accelerator": accelerator | {"flop_shares": _flop_shares()},
    }
    unet_bar = UNET_BAR - 0.1 * arguments.quick  # few batches: the actors' unequal start weighs
    bars = {
        f"peak memory, largest over smallest run <= {MEMORY_BAR}": memory <= MEMORY_BAR,
        f"seconds per image, largest run over the one before <= {TIME_BAR}": pace <= TIME_BAR,
        f"UNet busy >= {unet_bar:.0%} of the time": accelerator["utilisation"]["unet"] >= unet_bar,
    }
    finish("streaming", numbers, bars, arguments.quick)


if __name__ == "__main__":
    main()
