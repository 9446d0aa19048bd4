"""What this machine says of itself: memory of this run's processes, memory of GPUs, energy."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
"""Where Linux keeps the counters of processors (RAPL, Intel's and AMD's); root alone may read."""
PACKAGE = re.compile(r"[a-z]+-rapl:\d+")
"""A whole processor; `intel-rapl:0:0` is a part of one."""
NVML = ("pynvml", "ray._private.thirdparty.pynvml")
"""NVIDIA's library: a package of its own, or the copy that comes with Ray."""
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of them is there where NVIDIA's driver is (the second on Windows' Linux)."""


@dataclass(frozen=True)
class Reading:
    """What is in use at a moment; None: it cannot be read here."""

    memory: float | None = None
    """Bytes of this process and all below it."""
    gpu_memory: float | None = None
    """Bytes in use of the fullest GPU."""
    joules: float | None = None
    """Of processors and GPUs, since some moment."""


class Gauges:
    """Reads them all; what cannot be read is looked for once."""

    def __init__(self) -> None:
        """Look for nothing yet: most processes never ask."""
        self._sources: tuple[Rapl, Gpus | None] | None = None

    def __call__(self) -> Reading:
        """What is in use now."""
        if self._sources is None:
            self._sources = Rapl(), gpus_here()
        rapl, gpus = self._sources
        joules = [rapl.joules(), gpus.joules() if gpus else None]
        known = [value for value in joules if value is not None]
        return Reading(memory(), gpus.memory() if gpus else None, sum(known) if known else None)


def memory() -> float | None:
    """Bytes that this process and all below it hold: private pages, and the most of shared ones.

    Shared pages (libraries, Ray's store) are in every process's count and are taken once, as many
    as the process has that shares most.
    """
    import psutil

    private, shared = 0, 0
    own = psutil.Process()
    for process in (own, *_below(own)):
        with contextlib.suppress(psutil.Error):
            held = process.memory_info()
            both = getattr(held, "shared", 0)
            private, shared = private + held.rss - both, max(shared, both)
    return float(private + shared) or None


def _below(process: Any) -> Sequence[Any]:
    import psutil

    with contextlib.suppress(psutil.Error):
        found: Sequence[Any] = process.children(recursive=True)
        return found
    return ()


class Rapl:
    """The energy counters of this machine's processors."""

    def __init__(self, root: Path = POWERCAP) -> None:
        """Begin to count at zero, with those below `root` that may be read."""
        self._total = 0.0
        self._last: dict[Path, int] = {}
        for zone in sorted(root.glob("*")) if root.is_dir() else ():
            counter = zone / "energy_uj"
            if PACKAGE.fullmatch(zone.name) and (now := _whole(counter)) is not None:
                self._last[counter] = now

    def joules(self) -> float | None:
        """Since the beginning; None: no counter may be read. They begin again at a maximum."""
        for counter, last in self._last.items():
            if (now := _whole(counter)) is not None:
                if now < last:
                    last -= _whole(counter.with_name("max_energy_range_uj")) or last
                self._total += (now - last) / 1e6
                self._last[counter] = now
        return self._total if self._last else None


def _whole(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


class Gpus:
    """NVIDIA's GPUs that this process may use."""

    def __init__(self, library: Any, handles: Sequence[Any]) -> None:
        """`library`: pynvml, initialised; `handles`: its devices."""
        self._library, self._handles = library, handles

    def memory(self) -> float | None:
        """Bytes in use of the fullest one, whoever uses them."""
        read = self._library.nvmlDeviceGetMemoryInfo
        return max(self._each(lambda handle: float(read(handle).used)), default=None)

    def joules(self) -> float | None:
        """Of all, since the driver was loaded; None: they do not count it."""
        read = self._library.nvmlDeviceGetTotalEnergyConsumption
        found = self._each(lambda handle: read(handle) / 1e3)
        return sum(found) if len(found) == len(self._handles) else None

    def _each(self, read: Callable[[Any], float]) -> list[float]:
        found = []
        for handle in self._handles:
            with contextlib.suppress(self._library.NVMLError):
                found.append(read(handle))
        return found


def gpus_here(names: Sequence[str] = NVML) -> Gpus | None:
    """The GPUs; None: there is none, or nothing to ask them with."""
    for name in names if any(map(Path.exists, DRIVERS)) else ():  # else nothing is imported
        try:
            library = import_module(name)
            library.nvmlInit()
            handles = _visible(library, os.environ.get("CUDA_VISIBLE_DEVICES"))
        except Exception:  # no library, no driver, no permission: nothing to be read
            continue
        return Gpus(library, handles) if handles else None
    return None


def _visible(library: Any, wanted: str | None) -> list[Any]:
    """Devices by CUDA's own variable: numbers or UUIDs; without it, all."""
    if wanted is None:
        count = library.nvmlDeviceGetCount()
        return [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    named = [each.strip() for each in wanted.split(",") if each.strip()]
    return [
        library.nvmlDeviceGetHandleByIndex(int(each))
        if each.isdigit()
        else library.nvmlDeviceGetHandleByUUID(each)
        for each in named
    ]
