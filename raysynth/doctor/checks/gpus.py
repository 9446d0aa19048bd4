"""GPUs: as many as Ray believes, seen by torch, and with memory for what the plan puts on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysynth.config.config import Config
from raysynth.doctor.check import (
    DRIVER,
    FAIL,
    OK,
    WARN,
    Check,
    Failed,
    Finding,
    Scene,
    places,
)

GB = 1e9


def wanted(config: Config) -> float:
    """GPUs that the widest stage asks for at once."""
    return max((one.of("GPU")[0] for one in config.asked), default=0.0)


def look(config: Config, visit: str) -> dict[str, Any]:
    """The devices of this machine; where a run asks for GPUs, as its torch sees them."""
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if not wanted(config):
        return {"devices": devices, "torch": "", "seen": []}
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append((torch.cuda.get_device_name(number), free, total))
    return {"devices": devices, "torch": torch.__version__, "seen": found}


def judge(scene: Scene) -> Iterator[Finding]:
    """GPUs that are missing, hidden, too small, or there for nothing."""
    seen = {place: facts for place, facts in scene.of("gpus").items() if place != DRIVER}
    there = {node.name: node.resources.get("GPU", 0.0) for node in scene.nodes}
    if not wanted(scene.config):
        yield _unasked(seen)
        return
    hidden = [p for p, facts in seen.items() if there.get(p, 0.0) > len(facts["seen"])]
    for place in hidden:
        yield Finding(
            FAIL,
            f"{place}: Ray counts {there[place]:g} GPUs, torch {seen[place]['torch']} sees "
            f"{len(seen[place]['seen'])}",
            "torch's wheel for CUDA and a driver that is new enough for it",
        )
    cards = {p: facts["seen"] for p, facts in seen.items() if facts["seen"]}
    if not cards:
        yield from () if hidden else _none_up(scene)
        return
    small = [*_too_small(scene, cards)]
    yield from small
    if not hidden and not any(finding.mark == FAIL for finding in small):
        names = sorted({name for each in cards.values() for name, _, _ in each})
        least = min(total for each in cards.values() for _, _, total in each)
        number = sum(len(each) for each in cards.values())
        need = f", {_need(scene):,.1f} GB for one adapter" if _need(scene) else ""
        yield Finding(OK, f"{number:,} x {', '.join(names)}, at least {least / GB:,.1f} GB{need}")


def _unasked(seen: Mapping[str, Any]) -> Finding:
    idle = [place for place, facts in seen.items() if facts["devices"]]
    if idle:
        return Finding(
            WARN,
            f"{places(idle)}: GPUs are there, and the configuration asks for none",
            "resources.gpus_per_worker=1 search.gpus_per_trial=1",
        )
    return Finding(OK, "none asked for (resources.gpus_per_worker=0, search.gpus_per_trial=0)")


def _none_up(scene: Scene) -> Iterator[Finding]:
    """A cluster that grows has none yet; elsewhere none will come."""
    if scene.config.resources.autoscales and scene.nodes:
        yield Finding(
            WARN,
            "no node with a GPU is up, so that none was looked at; the cluster grows on demand",
            "give the command again while a run is at work",
        )
        return
    yield Finding(
        FAIL,
        f"no GPU is there, the widest stage asks for {wanted(scene.config):g}",
        "a machine or node that has some and torch's wheel for CUDA, or "
        "resources.gpus_per_worker=0 search.gpus_per_trial=0",
    )


def _too_small(scene: Scene, cards: Mapping[str, Any]) -> Iterator[Finding]:
    """GPUs on which not even one adapter trains, and those that others have filled."""
    need, config = _need(scene), scene.config
    part = config.finetune.memory_share * min(1.0, config.resources.gpus_per_worker or 1.0)
    least = {place: min(total for _, _, total in each) for place, each in cards.items()}
    small = [place for place, total in least.items() if total * part < need * GB]
    if small:
        yield Finding(
            FAIL,
            f"{places(small)}: a worker has {part:.0%} of {min(least.values()) / GB:,.1f} GB, one "
            f"adapter takes {need:,.1f} GB",
            "larger GPUs, resources.gpus_per_worker=1, finetune.gradient_checkpointing=true or a "
            "smaller finetune.batch_size",
        )
    free = {place: min(free for _, free, _ in each) for place, each in cards.items()}
    used = [p for p in cards if p not in small and free[p] < part * least[p]]
    if used:
        yield Finding(
            WARN,
            f"{places(used)}: only {min(free[p] for p in used) / GB:,.1f} GB of a GPU are free, a "
            f"worker fills {part:.0%} of it (finetune.memory_share)",
            "end what else uses it, or a smaller finetune.memory_share",
        )


def _need(scene: Scene) -> float:
    """GB to train one adapter of the largest generator; 0 where none is trained."""
    plan = scene.plan
    if isinstance(plan, Failed) or not scene.config.resources.gpus_per_worker:
        return 0.0
    return max((one.one_adapter_gb for one in plan.generators.values()), default=0.0)


PART = Check(70, judge, look)
