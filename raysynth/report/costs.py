"""What a run cost, by what its stages recorded; and what none of them recorded."""

from __future__ import annotations

from dataclasses import dataclass

from raysynth.report.content import Content

MISSING = (
    "Peak memory and energy are not recorded by any stage, so this page says nothing of them. Time "
    "of interrupted attempts is in; time of queueing is not."
)


@dataclass(frozen=True)
class Cost:
    """In words: what it took, and what is not known."""

    said: str
    missing: str


def cost(content: Content, time: str) -> Cost:
    """Of a run whose stages took `time`, in words."""
    config, hours = content.config, sum(content.timings.values()) / 3600
    said = [f"{time} of stages, some side by side."]
    pace = content.generation.get("images_per_second")
    if not pace and (used := content.generation.get("utilisation")):
        pace = content.generation.get("generated", 0) / max(used["seconds"], 1e-9)
    if pace:
        said.append(f"{pace:,.1f} images per second were generated.")
    gpus = max(asked.of("GPU")[0] for asked in config.asked)
    if gpus:
        said.append(f"At most {hours * gpus:,.2f} GPU-hours: {gpus:g} GPUs asked for at once.")
    else:
        cpus = max(asked.of("CPU")[0] for asked in config.asked)
        said.append(
            f"No GPU; at most {hours * cpus:,.2f} CPU-hours: {cpus:g} CPUs asked for at once."
        )
    return Cost(" ".join(said), MISSING)
