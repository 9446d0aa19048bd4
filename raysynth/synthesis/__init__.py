"""Room 4: specs -> images -> CLIP scores -> Parquet shards; selection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysynth.synthesis.selection import run_selection
    from raysynth.synthesis.shards import read_shards, shard_files
    from raysynth.synthesis.solver import check_solver
    from raysynth.synthesis.stage import run_synthesis

__all__ = ["check_solver", "read_shards", "run_selection", "run_synthesis", "shard_files"]
_MODULES = {
    "check_solver": "solver",
    "read_shards": "shards",
    "run_selection": "selection",
    "run_synthesis": "stage",
    "shard_files": "shards",
}


def __getattr__(name: str) -> Any:
    # On demand (PEP 562): the tasks that encode and write import this package in processes of
    # their own, and would load torch and diffusers, seconds and 0.3 GB each, for nothing.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
