"""The configuration by itself: what `raysynth plan` makes of it, or why it is refused."""

from __future__ import annotations

from collections.abc import Iterator

from raysynth.doctor.check import FAIL, OK, WARN, Check, Failed, Finding, Scene
from raysynth.planning.preflight import warnings_of


def judge(scene: Scene) -> Iterator[Finding]:
    """The plan in a line."""
    plan = scene.plan
    if isinstance(plan, Failed):
        yield Finding(FAIL, plan.text, plan.fix, plan.passing)
        return
    for warning in warnings_of(scene.config):
        text, _, fix = warning.partition(" Fix: ")
        yield Finding(WARN, text.rstrip("."), fix or "see `raysynth plan`")
    adapters = sum(one.adapters for one in plan.generators.values())
    images = sum(group.synthetic for one in plan.generators.values() for group in one.groups)
    yield Finding(
        OK,
        f"{adapters:,} adapters, {images:,} images, {sum(plan.gpu_hours.values()):,.2f} GPU-hours, "
        f"{sum(plan.storage_gb.values()):,.2f} GB to store (`raysynth plan`)",
    )


PART = Check(20, judge)
