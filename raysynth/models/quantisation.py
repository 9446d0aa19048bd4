"""In which forms a frozen base can be kept that take fewer bits, and where each is to be had.

`quantised` has the layers. Nothing here imports torch: the driver asks, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from raysynth.errors import ConfigError
from raysynth.models.settings import BaseConfigSection

KEY = "base.quantization"
EXTRA = "pip install 'raysynth[quantization]'"
BLOCK, BLOCKS = 64, 256
"""Numbers that share a scale in nf4, and scales that share one of their own: bitsandbytes'."""
SCALE_BYTES = 4


@dataclass(frozen=True)
class Kind:
    """One form."""

    title: str
    packages: tuple[str, ...] = ()
    """Modules that it needs; none: torch alone."""
    devices: tuple[str, ...] = ()
    """Kinds of torch devices that it is known for; none: all."""


KINDS = {
    "int8": Kind("8-bit integers"),
    "nf4": Kind("4-bit NormalFloat", ("bitsandbytes",), ("cuda", "cpu", "xpu")),
}
"""Value of `base.quantization` -> what it is; `none` is none of them."""


def is_quantised(base: BaseConfigSection) -> bool:
    """Whether the base is kept in fewer bits."""
    return base.quantization in KINDS


def check_quantisation(base: BaseConfigSection) -> None:
    """Refuse a form whose library is not installed, or that a named device has not; ConfigError.

    (What `base.device=auto` finds is known in the worker.)
    """
    if not is_quantised(base):
        return
    kind, said = KINDS[base.quantization], f"{KEY}={base.quantization}"
    if missing := [name for name in kind.packages if find_spec(name) is None]:
        raise ConfigError(
            f"{said}: needs {', '.join(missing)}, which is not installed. Fix: {EXTRA}, on every "
            f"node; or {KEY}=int8, which needs nothing"
        )
    device = base.device.partition(":")[0]
    if kind.devices and device not in ("auto", *kind.devices):
        raise ConfigError(
            f"{said}: got base.device={base.device}, expected one of {', '.join(kind.devices)}, "
            f"for which {', '.join(kind.packages)} has it. Fix: {KEY}=int8, or another device"
        )


def bytes_of(form: str, outputs: int, inputs: int) -> int:
    """Bytes of a matrix of a linear layer in a form, with its scales."""
    numbers = outputs * inputs
    if form == "int8":
        return numbers + outputs * SCALE_BYTES
    blocks = -(-numbers // BLOCK)
    return -(-numbers // 2) + blocks + -(-blocks // BLOCKS) * SCALE_BYTES


def kept_as(base: BaseConfigSection) -> str:
    """How the network's weights are kept, for plans."""
    return base.quantization if is_quantised(base) else "16 bits"


def in_words(base: BaseConfigSection) -> str:
    """What a card adds to a base's name; "" where nothing is quantised."""
    if not is_quantised(base):
        return ""
    return f", its linear layers as {KINDS[base.quantization].title} ({base.quantization})"
