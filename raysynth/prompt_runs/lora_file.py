"""A LoRA file as it lies somewhere: which layers it adapts, of what rank; by its header alone.

diffusers' form: `<part>.<layer>.lora_A.weight` and `.lora_B.weight`, DoRA's
`.lora_magnitude_vector`, PEFT's settings as JSON in the header. kohya's: `lora_unet_<layer>.`
`lora_down.weight`, `lora_up.weight`, `alpha`, `dora_scale`, of transformers `diffusion_model.` with
either's ends; its layers are named as diffusers does when its tensors are read
(`raysynth.adapters.foreign`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raysynth.errors import ModelError, StorageError
from raysynth.models.finite import fault_of
from raysynth.models.headers import LENGTH, tensors_of
from raysynth.storage.files import open_storage
from raysynth.terminal import clipped, masked

A, B, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"
DOWN, UP, LENGTHS = ".lora_down.weight", ".lora_up.weight", ".dora_scale"
ENDS = {DOWN: DOWN, UP: UP, A: DOWN, B: UP, ALPHA: ALPHA, LENGTHS: LENGTHS}
"""Ends of tensors' names in single files, and what they are in kohya's."""
MAGNITUDE = ".lora_magnitude_vector"
METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's settings in a file's header."""
TEXT = "text_encoder"
"""How the names of layers of text encoders begin."""
KOHYA_TEXT = ("lora_te_", "lora_te1_", "lora_te2_")
KOHYA = ("lora_unet_", "diffusion_model.", *KOHYA_TEXT)
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layer:
    """What a file says of one adapted layer: h = W0 x + scale B A x."""

    a: tuple[int, ...]
    """Shape of A, [r, inputs, ...]."""
    b: tuple[int, ...]
    """Shape of B, [outputs, r, ...]."""
    scale: float
    """alpha / r, or alpha / sqrt(r) (rsLoRA); 1 where no header says it."""

    @property
    def rank(self) -> int:
        """r."""
        return self.a[0]


@dataclass(frozen=True)
class LoraFile:
    """A file that can be used, by its header."""

    path: str
    layers: Mapping[str, Layer]
    """Name with its part of the model, such as `unet.mid_block.attentions.0.proj_in`; kohya's own
    where `kohya`."""
    kohya: bool = False

    @property
    def text(self) -> bool:
        """Whether it adapts a text encoder too."""
        return any(name.startswith((TEXT, *KOHYA_TEXT)) for name in self.layers)

    @property
    def rank(self) -> int:
        """The largest of its layers'."""
        return max(layer.rank for layer in self.layers.values())


def read_lora_file(path: str, *, numbers: bool = True) -> LoraFile:
    """The layers of a file at a path or URI.

    `numbers`: look at all of them; else it is read by its header, having been looked at before.

    Raises
    ------
    ModelError
        It is not there, not whole, has weights that are no numbers, or is of a form that is not
        known.
    """
    storage, name = open_storage(path)
    try:
        size = storage.size(name)
        with storage.open(name, "rb") as file:
            if fault := fault_of(file, size, numbers=numbers):
                raise _refused(path, f"{fault}; expected a whole LoRA file")
            file.seek(0)
            shapes = {key: shape for key, (_, shape) in tensors_of(file, size).items()}
            file.seek(0)
            length = int.from_bytes(file.read(LENGTH), "little")
            header = json.loads(file.read(length)).get("__metadata__") or {}
    except (OSError, StorageError) as error:
        raise _refused(path, f"cannot be read ({clipped(masked(str(error)))})") from None
    for takes, layers_of in FORMS:
        if takes(shapes):
            return LoraFile(path, layers_of(path, shapes, header), takes is _is_kohya)
    some = ", ".join(sorted(shapes)[:2])
    why = (
        f"is no LoRA file of diffusers' form: it has {clipped(some)}; expected names as `unet.*{A}`"
    )
    raise _refused(path, why)


def _refused(path: str, why: str, fix: str = "another file") -> ModelError:
    return ModelError(f"{masked(path)}: {why}. Fix: {fix}")


def _is_diffusers(shapes: Shapes) -> bool:
    return any(name.endswith(A) for name in shapes)


def _of_diffusers(path: str, shapes: Shapes, header: Mapping[str, str]) -> dict[str, Layer]:
    told = _settings(header)
    known = {name for key in shapes for name in [_layer(key)] if name}
    ours = (ALPHA, MAGNITUDE, f"{MAGNITUDE}.weight")
    strange = sorted(key for key in shapes if not _layer(key) and not key.endswith(ours))
    if strange or any(f"{name}{part}" not in shapes for name in known for part in (A, B)):
        raise _half(path, strange[0] if strange else sorted(known)[0])
    found = {}
    for name in sorted(known):
        a, b = shapes[f"{name}{A}"], shapes[f"{name}{B}"]
        found[name] = Layer(a, b, _scale(told, name, a[0]))
    return found


def _layer(key: str) -> str:
    """The layer that a tensor is of; "": of none."""
    return next((key.removesuffix(part) for part in (A, B) if key.endswith(part)), "")


def _settings(header: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        told = json.loads(header.get(METADATA, "{}"))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _scale(told: Mapping[str, Any], name: str, rank: int) -> float:
    """What a layer's update is scaled by; 1 where nothing is said, as diffusers takes it."""
    part, _, own = name.partition(".")
    alpha = told.get(f"{part}.lora_alpha", rank)
    pattern = told.get(f"{part}.alpha_pattern") or {}
    alpha = next((v for key, v in pattern.items() if own == key or own.endswith(f".{key}")), alpha)
    return float(alpha) / (math.sqrt(rank) if told.get(f"{part}.use_rslora") else rank)


def _is_kohya(shapes: Shapes) -> bool:
    return any(name.startswith(KOHYA) for name in shapes)


def _of_kohya(path: str, shapes: Shapes, header: Mapping[str, str]) -> dict[str, Layer]:
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    strange = []
    for key, shape in sorted(shapes.items()):
        end = next((end for end in ENDS if key.endswith(end)), "")
        if not end:
            strange.append(key)
        found.setdefault(key.removesuffix(end), {})[ENDS.get(end, "")] = shape
    half = [name for name, pair in found.items() if not {DOWN, UP} <= pair.keys()]
    if strange or half:
        raise _half(path, [*strange, *half][0])
    return {name: Layer(pair[DOWN], pair[UP], 1.0) for name, pair in found.items()}


def _half(path: str, odd: str) -> ModelError:
    why = f"another kind of adapter, or half of one: {clipped(odd)}"
    return _refused(path, f"{why}; expected LoRA's or DoRA's pairs of matrices")


Read = Callable[[str, Shapes, Mapping[str, str]], dict[str, Layer]]
FORMS: tuple[tuple[Callable[[Shapes], bool], Read], ...] = (
    (_is_kohya, _of_kohya),
    (_is_diffusers, _of_diffusers),
)
"""(whether a file's names are of a form, its layers), in the order in which they are asked."""
