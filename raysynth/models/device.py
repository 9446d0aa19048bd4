"""Where a worker computes and how precisely: from the configuration, or by probing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from raysynth.errors import ConfigError, first_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on; `auto` takes the first of CUDA, MPS and CPU that is there.

    Raises ConfigError when a named device does not exist in this process.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"base.device: cannot use {name!r} here ({first_line(error)}); expected auto "
            "or a torch device of this machine, such as cpu or cuda:0. Fix: base.device=auto"
        ) from None
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Compute precision on a device; `auto` takes bfloat16 where the hardware multiplies it."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if multiplies else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bfloat16() else torch.float32


def weight_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Precision in which frozen weights are kept.

    On a CPU memory is not the limit and autocast is used instead, which keeps the normalisations
    exact; on an accelerator the weights themselves are kept in the compute precision.
    """
    return torch.float32 if device.type == "cpu" else dtype


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The context in which models run at `dtype`."""
    enabled = dtype != torch.float32
    return torch.autocast(device.type, dtype if enabled else None, enabled=enabled)


def _cpu_multiplies_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
