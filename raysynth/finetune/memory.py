"""How many adapters fit into a worker's memory: measured on short steps, then extrapolated.

bytes(P adapters, B rows) = fixed + P * per_adapter + B * per_row. A step of one adapter's rows and
one of twice as many separate `per_row` from what the process holds anyway; what an adapter keeps
between steps is counted.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from raysynth.finetune.engines import Trainee
from raysynth.finetune.jobs import Job
from raysynth.finetune.optimizer import kept_bytes
from raysynth.finetune.packs import Pack, passes_of
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base

BYTES = 4  # float32, in which weights, gradients and averages are kept


@dataclass(frozen=True)
class Footprint:
    """Peak bytes of a training step, by what they grow with."""

    fixed: float
    """The process: libraries, the frozen base, encoders."""
    per_adapter: float
    """Weights, gradient, optimizer state, images and text states of one adapter."""
    per_row: float
    """Activations of one image."""

    def of(self, adapters: int, rows: int) -> float:
        """Estimated peak with so many adapters and rows in a step."""
        return self.fixed + adapters * self.per_adapter + rows * self.per_row


@dataclass(frozen=True)
class Fit:
    """What a worker found out about its memory."""

    slots: int
    footprint: Footprint | None
    """None where a single adapter left nothing to decide."""
    budget: float
    """Bytes that may be filled."""

    def __str__(self) -> str:
        if self.footprint is None:
            return "1 adapter at a time"
        return (
            f"{self.slots} adapters at a time; {self.footprint.fixed / 1e9:.2f} GB + "
            f"{self.footprint.per_adapter / 1e6:.0f} MB per adapter + "
            f"{self.footprint.per_row / 1e6:.0f} MB per image, {self.budget / 1e9:.1f} GB free"
        )


def fit_slots(
    pack: Pack,
    jobs: Sequence[Job],
    base: Base,
    accelerator: Any,
    build: Callable[[int], Trainee],
) -> tuple[Trainee, Fit]:
    """A trainee with as many slots as there are jobs, or as memory allows.

    Parameters
    ----------
    base : with its text encoder, which says how long a prompt is.
    build : makes a trainee with a number of slots.
    """
    if len(jobs) == 1 or pack.training.engine == "full":
        return build(1), Fit(1, None, 0.0)
    trainee = build(2)
    footprint = measure(trainee, pack, jobs, base, accelerator)
    budget = memory_budget(pack, trainee.rows.values.device)
    slots = slots_within(footprint, [rows_of(job, pack) for job in jobs], budget)
    return trainee.with_slots(slots), Fit(slots, footprint, budget)


def measure(
    trainee: Trainee, pack: Pack, jobs: Sequence[Job], base: Base, accelerator: Any
) -> Footprint:
    """The footprint of a trainee with two slots."""
    rows = max(rows_of(job, pack) for job in jobs)
    weights = trainee.rows.values.shape[1]
    device = trainee.rows.values.device

    def step(adapters: int) -> Callable[[], None]:
        slots = [slot for slot in range(adapters) for _ in range(rows)]
        return lambda: probe(trainee, slots, base, accelerator)

    (held_one, peak_one), (held, peak) = (held_and_peak(device, step(n)) for n in (1, 2))
    per_row = max((peak - held) - (peak_one - held_one), 0.0) / rows
    kernels = max(held - held_one, 0.0)  # kept by libraries per batch size: training's is new
    slots = 2 * 2 * BYTES * weights  # values and gradients of two
    copies = bool(pack.training.budget.ema) + bool(pack.settings.patience)
    told = told_bytes(base)
    material = max(
        min(2 * len(job.ids), job.steps * rows) * latent_bytes(base)
        + (len(job.spoken[0]) + 1) * told
        for job in jobs
    )
    return Footprint(
        fixed=peak + kernels - 2 * rows * per_row - slots,
        per_adapter=(kept_bytes(pack.settings) + copies * BYTES) * weights + material,
        per_row=per_row,
    )


def probe(trainee: Trainee, slots: Sequence[int], base: Base, accelerator: Any) -> None:
    """Forward and backward pass of a batch with one row per entry of `slots`."""
    rows, device = len(slots), trainee.rows.values.device
    noisy = torch.zeros(rows, *base.latent_shape, device=device)
    told = base.condition([""]).take([0] * rows)
    trainee.route(slots)
    denoiser = Denoiser(base, trainee.unet, accelerator.autocast)
    denoiser(noisy, torch.ones(rows, device=device), told).raw.square().mean().backward()
    trainee.rows.gradients.zero_()


def slots_within(footprint: Footprint, rows: Sequence[int], budget: float) -> int:
    """The most adapters, at least one, whose step stays within `budget` bytes.

    `rows`: of each adapter, in the order in which they will enter.
    """
    largest = sorted(rows, reverse=True)
    fitting = [
        count
        for count in range(1, len(rows) + 1)
        if footprint.of(count, sum(largest[:count])) <= budget
    ]
    return max(fitting, default=1)


def memory_budget(pack: Pack, device: torch.device) -> float:
    """Bytes that this worker may fill: its part of the GPU, or of the node's free memory."""
    share, resources = pack.settings.memory_share, pack.resources
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return share * total * min(1.0, resources.gpus_per_worker or 1.0)
    here = psutil.Process().memory_info().rss
    # The other workers may sit on the same node, and take as much.
    return share * (_free_memory() / resources.workers + here)


def rows_of(job: Job, pack: Pack) -> int:
    """Rows that the network sees of a job's micro-batch."""
    return job.batch * passes_of(pack.training, pack.settings)


def latent_bytes(base: Base) -> int:
    """Bytes of one encoded image: mean and spread in float16."""
    return 2 * 2 * math.prod(base.latent_shape)


def told_bytes(base: Base) -> int:
    """Bytes of what one prompt says, as it is kept while an adapter trains."""
    tensors = base.condition([""]).tensors.values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def held_and_peak(device: torch.device, work: Callable[[], None]) -> tuple[float, float]:
    """Bytes in use before `work`, and the most while it runs, once libraries know its shapes."""
    work()
    return held_bytes(device), peak_bytes(device, work)


def held_bytes(device: torch.device) -> float:
    """Bytes in use, what was freed given back first: used again, it would hide what work needs."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:  # glibc
        trim(0)
    return float(psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device, work: Callable[[], None]) -> float:
    """Most bytes in use at once while `work` runs: the device's, or the process's on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return float(torch.cuda.max_memory_allocated(device))
    reset = Path("/proc/self/clear_refs")
    if not os.access(reset, os.W_OK):
        work()
        unit = 1 if sys.platform == "darwin" else 1024
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
    reset.write_text("5")  # the kernel's high-water mark, from here on
    work()
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


def _free_memory() -> float:
    """Free memory of this machine, or of the container that limits it."""
    free = float(psutil.virtual_memory().available)
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, float(limit.read_text()) - float(used.read_text()))
    return free
