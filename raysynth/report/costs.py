"""What a run cost, by what its stages recorded; and what none of them recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysynth.cluster.capacity import is_local
from raysynth.report.content import Content
from raysynth.stages.spending import Spent

KEPT_TIME = "Time of interrupted attempts is in; time of queueing is not."
NOT_READ = {
    "memory": "memory",
    "gpu_memory": "a GPU's memory",
    "joules": "energy (NVIDIA's GPUs count it, and processors where their counters may be read)",
}
TITLES = {"memory": "peak memory", "gpu_memory": "peak GPU memory", "joules": "energy"}
EARLIER = "An earlier version made this run: it recorded neither memory nor energy. "


@dataclass(frozen=True)
class Cost:
    """In words: what it took, and what is not known."""

    said: str
    missing: str
    columns: Mapping[str, str]
    """Names of `Spent` that any stage knows -> titles."""


@dataclass(frozen=True)
class Row:
    """A stage in the table of costs; "–" where it did not record a thing."""

    name: str
    what: str
    seconds: float
    spent: Mapping[str, str]


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
    known = tuple(name for name in NOT_READ if _values(content, name))
    columns = {name: TITLES[name] for name in known}
    said += [_in_all(content, name) for name in known]
    return Cost(" ".join(said), _missing(content, known, gpus > 0), columns)


def stages(content: Content, what: Mapping[str, str]) -> list[Row]:
    """A row per stage of `what`; those that not every run has, where this one has them."""
    return [
        Row(name, told, content.timings.get(name, 0.0), _shown(content.spent.get(name, Spent())))
        for name, told in what.items()
        if name not in ("grouping", "audit") or name in content.timings
    ]


def _values(content: Content, name: str) -> list[float]:
    found = [getattr(spent, name) for spent in content.spent.values()]
    return [value for value in found if value is not None]


def _in_all(content: Content, name: str) -> str:
    """A sentence of what all stages took of a thing."""
    values = _values(content, name)
    if name == "joules":
        return f"{energy(sum(values))} of energy, other programs' on the machine included."
    whose = "Peak memory" if name == "memory" else "Peak memory of the fullest GPU"
    return f"{whose}: {gigabytes(max(values))}."


def _missing(content: Content, known: tuple[str, ...], gpu: bool) -> str:
    """What no stage could read, and whose the numbers are that there are."""
    if not known:
        return EARLIER + KEPT_TIME
    gone = [what for name, what in NOT_READ.items() if name not in known]
    if not gpu:
        gone = [what for what in gone if what != NOT_READ["gpu_memory"]]
    told = f"Not readable here: {'; '.join(gone)}. " if gone else ""
    where = "" if is_local(content.config.resources) else ", and of the driver's machine alone"
    return (
        "Memory is that of the driver and all processes below it, shared pages once, looked at "
        f"every second or two{where}: stages side by side have the same. {told}{KEPT_TIME}"
    )


def _shown(spent: Spent) -> dict[str, str]:
    write: dict[str, Any] = {"memory": gigabytes, "gpu_memory": gigabytes, "joules": energy}
    values = {name: getattr(spent, name) for name in write}
    return {name: "–" if values[name] is None else write[name](values[name]) for name in write}


def gigabytes(count: float) -> str:
    """3.2e9 -> 3.2 GB; small ones in MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def energy(joules: float) -> str:
    """In Wh from 0.1 Wh on, kWh from 1 kWh on; below, in J."""
    hours = joules / 3600
    if hours >= 1000:
        return f"{hours / 1000:,.2f} kWh"
    return f"{hours:.1f} Wh" if hours >= 0.1 else f"{joules:.0f} J"
