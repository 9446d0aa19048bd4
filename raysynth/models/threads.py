"""How many threads a worker's torch has; apart from `device`, for drivers hand its users on."""

from __future__ import annotations


def use_threads(cpus: float) -> None:
    """Let torch use as many threads as the worker was given CPUs (spinning on more is slower)."""
    import torch  # seconds and 90 MB that a driver has no use for

    torch.set_num_threads(max(1, int(cpus)))
