"""Minutes of a run on this machine's CPUs, where it has no GPU: an estimate, with what it rests on.

The embedded models' stages are the quickstart's, scaled by their FLOPs and images; those of other
models are FLOPs over a share of the rate at which this machine multiplies matrices now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from raysynth.cluster.capacity import is_local, local_cpus
from raysynth.cluster.settings import ResourcesConfig
from raysynth.config.config import Config
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.settings import SMALL
from raysynth.planning.sizes import Images

FIXED = 10.0
"""CPU seconds of a stage that do not grow with its work: processes that start."""
CPU_SECONDS = {
    "reading": 26.0,
    "clustering": 38.0,
    "fine-tuning": 118.0,
    "generation": 100.0,
    "classifiers": 254.0,
}
"""Of the quickstart's stages, on cores that multiply bfloat16
(docs/notebook/2026-11-29-quickstart-speed.md; references, search and classification together)."""
WORK = {"fine-tuning": 5.6041e12, "generation": 4.9898e12, "classifiers": 3.4152e14}
"""FLOPs of the quickstart, as `plan` counts them."""
PICTURES = {"reading": 6400, "clustering": 4400}
"""Images of the quickstart's, by what is made of them."""
WITHOUT_BFLOAT16 = {"fine-tuning": 2.9, "generation": 5.2, "classifiers": 5.1, "clustering": 3.1}
"""How many times as long they took without (docs/notebook/2026-11-28-quickstart.md)."""
SHARE = 0.5
"""Of the rate of large products, what networks reach: a guess, and the largest of them here."""
CLIP_FLOPS = 8.8e9
"""Forward pass of a ViT-B/32 on one image; each is seen mirrored too."""
SIDE = 512
"""Of the product that is timed."""
GPU_FILES = ("/dev/nvidia0", "/dev/kfd")
MEASURED: Mapping[str, bool] = {}
FLAGS = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Minutes:
    """Wall minutes by stage, and what they rest on."""

    each: Mapping[str, float]
    basis: str

    @property
    def total(self) -> float:
        """Of the whole run."""
        return sum(self.each.values())


def has_gpu() -> bool:
    """Whether this machine shows a GPU; torch is not asked, which takes seconds."""
    return any(Path(name).exists() for name in GPU_FILES)


def minutes_of(config: Config, flops: Mapping[str, float], images: Images) -> Minutes | None:
    """Minutes of a run; None where it is not this machine's CPUs that run it.

    `flops`: by what they are for, as stages say what they cost.
    """
    small = config.classifier.backbone == SMALL
    return of_work(
        config.resources,
        config.base,
        flops,
        {"classifiers": small},
        partial(_of_pictures, config, images),
    )


def of_work(
    resources: ResourcesConfig,
    base: BaseConfigSection,
    flops: Mapping[str, float],
    measured: Mapping[str, bool] = MEASURED,
    pictures: Callable[[bool, float], dict[str, float]] = lambda fast, products: {},
) -> Minutes | None:
    """As `minutes_of`, of some work.

    Parameters
    ----------
    measured : whether the quickstart has the like of it, besides what the base does.
    pictures : CPU seconds besides, by whether the cores multiply bfloat16 and by FLOP/s.
    """
    if resources.gpus_per_worker or not is_local(resources) or has_gpu():
        return None
    wanted = resources.workers * resources.cpus_per_worker
    cores = max(1.0, min(float(local_cpus()), wanted))
    fast, own = _has_bfloat16(), base.name == "embedded"
    known = dict.fromkeys(flops, False)  # of grouping, scoring, audits nothing was measured
    known |= {"fine-tuning": own, "generation": own, **measured}
    products = _products() if not all(known[name] for name in flops) else 0.0
    seconds = pictures(fast, products)
    for name, work in flops.items():
        if known[name]:
            longer = 1.0 if fast else WITHOUT_BFLOAT16[name]
            scaled = (CPU_SECONDS[name] - FIXED) * work / WORK[name]
            seconds[name] = longer * (FIXED * (work > 0) + scaled)
        else:
            seconds[name] = FIXED + work / (SHARE * products)
    each = {name: value / cores / 60 for name, value in seconds.items() if value}
    return Minutes(each, _basis(cores, fast, products, all(known[name] for name in flops)))


def _of_pictures(config: Config, images: Images, fast: bool, products: float) -> dict[str, float]:
    """CPU seconds of reading the images and of embedding them."""
    splits = images.splits
    counts = {"reading": sum(splits.values()), "clustering": splits["train"] + splits["validation"]}
    found = {
        name: FIXED + (CPU_SECONDS[name] - FIXED) * count / PICTURES[name]
        for name, count in counts.items()
    }
    if not fast:
        found["clustering"] *= WITHOUT_BFLOAT16["clustering"]
    if config.base.clip != "embedded":
        rate = SHARE * (products or _products())
        seen = 2 * counts["clustering"] + images.candidates
        found["clustering"] = FIXED + seen * CLIP_FLOPS / rate
    return found


def _basis(cores: float, fast: bool, products: float, known: bool) -> str:
    kind = "with" if fast else "without"
    told = f"{cores:g} core(s) {kind} bfloat16 at work, none of them for others; "
    if known:
        return told + "as long as the quickstart's stages took, by FLOPs and images"
    return (
        f"{told}{SHARE:.0%} of the {products / 1e9:,.0f} GFLOP/s that one core multiplies large "
        "matrices at now (float32)"
    )


def _has_bfloat16() -> bool:
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in told for flag in FLAGS)


def _products() -> float:
    """FLOP/s of one core at float32 products of SIDE x SIDE; the best of a few, 50 ms."""
    from threadpoolctl import threadpool_limits  # scikit-learn's: only where it is asked

    one = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    best = 0.0
    with threadpool_limits(1):
        for _ in range(6):
            start = time.thread_time()  # of the core, whatever else the machine does
            one @ one
            best = max(best, 2 * SIDE**3 / max(time.thread_time() - start, 1e-6))
    return best


def in_words(minutes: float) -> str:
    """Minutes as a person says them: `less than 1 min`, `about 7 min`, `about 5 h`."""
    if minutes < 1:
        return "less than 1 min"
    if minutes < 100:
        return f"about {minutes:.0f} min"
    hours = minutes / 60
    return f"about {hours:.0f} h" if hours < 48 else f"about {hours / 24:.0f} days"
