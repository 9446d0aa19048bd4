"""Single files of transformers' adapters, under the names that ComfyUI and diffusers both read.

Z-Image: `diffusion_model.<diffusers' name>`, as ComfyUI and ai-toolkit write it; kohya's names
(`lora_unet_...`), with q, k and v as one layer or apart, are read as well. AuraFlow: kohya trains
none and diffusers translates no names of it; both programs read diffusers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_z_image_lora_to_diffusers
from torch import Tensor

from raysynth.adapters.files import Update, Updates
from raysynth.adapters.layers import Form
from raysynth.errors import ConfigError, ModelError, first_line
from raysynth.terminal import masked

PART = "transformer."
COMFY = "diffusion_model."
SINGLE = (COMFY, "lora_unet_")
"""What layers' names begin with in single files."""
ENDS = {
    ".lora_A.weight": "A",
    ".lora_down.weight": "A",
    ".lora_B.weight": "B",
    ".lora_up.weight": "B",
    ".alpha": "alpha",
    ".dora_scale": "M",
}
Converter = Callable[[dict[str, Tensor]], dict[str, Tensor]]
CONVERTERS: dict[str, Converter] = {
    "ZImageTransformer2DModel": _convert_non_diffusers_z_image_lora_to_diffusers
}
"""Class of a network -> diffusers' converter of its names."""
Z_IMAGE = ("layers.", "noise_refiner.", "context_refiner.")
"""What its adapted layers' names begin with."""


def is_single(weights: Mapping[str, Tensor], part: str) -> bool:
    """Whether tensors are those of a single file for a transformer."""
    return f"{part}." == PART and any(key.startswith(SINGLE) for key in weights)


def from_single(weights: Mapping[str, Tensor], file: str, network: Any) -> dict[str, Update]:
    """The updates of a single file, by diffusers' names: a layer at a time, each with its alpha.

    Raises ModelError: of this network no names are published, or the file is no adapter.
    """
    kind = type(network).__name__
    if kind not in CONVERTERS:
        raise ModelError(
            f"{masked(file)}: names layers as {next(k for k in weights if k.startswith(SINGLE))}; "
            f"of a {kind} diffusers translates no such names; expected its own, "
            f"{PART}<layer>.lora_A.weight. Fix: a file that diffusers or PEFT saved, or that "
            "`raysynth export adapters` wrote"
        )
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        end = next((end for end in ENDS if key.endswith(end)), None)
        if end is None or not key.startswith(SINGLE):
            raise _strange(file, key)
        layers.setdefault(key.removesuffix(end), {})[ENDS[end]] = tensor
    found: dict[str, Update] = {}
    for layer, tensors in layers.items():
        if not {"A", "B"} <= tensors.keys():
            raise _strange(file, layer)
        found |= _of_layer(layer, tensors, CONVERTERS[kind], file)
    return dict(sorted(found.items()))


def _of_layer(
    layer: str, tensors: Mapping[str, Tensor], convert: Converter, file: str
) -> dict[str, Update]:
    """The updates of one of the file's layers: of several, where it is their rows together."""
    A, B, M = tensors["A"], tensors["B"], tensors.get("M")
    if M is not None and M.shape[0] != len(B):
        raise ModelError(
            f"{masked(file)}: {layer}.dora_scale has shape {tuple(M.shape)}, expected one length "
            f"for each of {len(B)} outputs. Fix: choose another file"
        )
    try:
        pair = convert({f"{layer}.lora.down.weight": A, f"{layer}.lora.up.weight": B})
    except (ValueError, KeyError) as error:
        raise _strange(file, f"{layer} ({first_line(error)})") from None
    alpha = float(tensors["alpha"]) if "alpha" in tensors else float(len(A))
    form, row = Form(len(A), alpha, dora=M is not None), 0
    found: dict[str, Update] = {}
    for key in (key for key in pair if key.endswith(".lora_B.weight")):
        name, own = key.removesuffix(".lora_B.weight"), pair[key]
        rows = None if M is None else M.flatten()[row : row + len(own)]
        found[name] = Update(form, pair[f"{name}.lora_A.weight"], own.contiguous(), rows)
        row += len(own)
    return found


def _strange(file: str, what: str) -> ModelError:
    return ModelError(
        f"{masked(file)}: {what} is no low-rank update that diffusers' converter reads; expected "
        "pairs of matrices, alpha and dora_scale alone. Fix: choose a LoRA or DoRA file, not "
        "LoHa's or LoKr's"
    )


def is_transformers(updates: Updates) -> bool:
    """Whether updates are a transformer's."""
    return any(name.startswith(PART) for name in updates)


def to_single(updates: Updates) -> dict[str, Tensor]:
    """A transformer's updates as a single file's tensors.

    Raises ConfigError: DoRA, where no names of its lengths are published.
    """
    own = {name.removeprefix(PART): update for name, update in updates.items()}
    if all(name.startswith(Z_IMAGE) for name in own):
        return _of_comfy(own)
    found: dict[str, Tensor] = {}
    for name, update in own.items():
        if update.M is not None:
            raise ConfigError(
                f"--form=kohya: {PART}{name} has lengths of rows (DoRA), for which no other "
                "program publishes a name in this family. Fix: --form peft"
            )
        found[f"{PART}{name}.lora_A.weight"] = update.A.contiguous()
        # No alpha: diffusers refuses one beside its own names, and ComfyUI reads no metadata.
        found[f"{PART}{name}.lora_B.weight"] = (update.B * update.form.scale).contiguous()
    return found


def _of_comfy(updates: Updates) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, update in updates.items():
        found[f"{COMFY}{name}.lora_A.weight"] = update.A.contiguous()
        found[f"{COMFY}{name}.lora_B.weight"] = update.B.contiguous()
        found[f"{COMFY}{name}.alpha"] = torch.tensor(float(update.form.plain.alpha))
        if update.M is not None:
            found[f"{COMFY}{name}.dora_scale"] = update.M.reshape(-1, 1).contiguous()
    return found
