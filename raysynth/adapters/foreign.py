"""Adapter files of other programs: diffusers' and PEFT's folders, kohya's and ComfyUI's files.

Names of layers are turned into diffusers' by diffusers' own converters. What kohya's files say of
their layers beside that, alpha and the lengths of DoRA (`dora_scale`), is taken as it stands:
diffusers' pipelines leave `dora_scale` out, with a warning, and draw other images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import safetensors
import safetensors.torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft
from diffusers.utils.state_dict_utils import StateDictType, convert_unet_state_dict_to_peft
from peft.utils import CONFIG_NAME
from torch import Tensor

from raysynth.adapters.files import Update, configs_of, updates_of
from raysynth.adapters.layers import Form
from raysynth.adapters.record import file_of
from raysynth.adapters.transformer_files import from_single, is_single
from raysynth.errors import DamagedError, ModelError, first_line
from raysynth.storage.files import open_storage
from raysynth.terminal import masked

KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
"""What layers' names begin with in kohya's files; transformers' are `transformer_files`'s."""
PEFTS = "base_model.model."
"""The same in PEFT's folders, which hold an adapter of one model."""


def read_file(path: str, part: str, parts: Mapping[str, Any]) -> dict[str, Update]:
    """The updates of an adapter of any known form, by names that begin with a part of the model.

    Parameters
    ----------
    path : as `record.file_of`.
    part : that predicts; it is meant where names do not begin with a part.
    parts : the model's, by name, at least that one; weights are not looked at.

    Raises
    ------
    DamagedError
        It is cut off.
    ModelError
        It is not there, or no adapter of a form that is known here.
    """
    file = file_of(path)
    storage, name = open_storage(file)
    return updates_in(storage.cat_file(name), file, part, parts)


def updates_in(data: bytes, file: str, part: str, parts: Mapping[str, Any]) -> dict[str, Update]:
    """The updates in a file's bytes; parameters and errors as `read_file`."""
    try:
        weights = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise DamagedError(
            f"{masked(file)}: cannot be read ({first_line(error)}); expected safetensors. Fix: "
            "copy it anew",
            file,
        ) from None
    if broken := sorted(key for key, tensor in weights.items() if not tensor.isfinite().all()):
        raise ModelError(
            f"{masked(file)}: {broken[0]} is not finite; expected numbers. Fix: choose another file"
        )
    if is_single(weights, part):
        return from_single(weights, file, parts[part])
    if any(key.startswith(KOHYA) for key in weights):
        return _flattened(_of_kohya(weights, file, dict(parts[part].config)), parts)
    configs = configs_of(data)
    if all(key.startswith(PEFTS) for key in weights):
        configs = _pefts_config(file, part)
        weights = {f"{part}.{key.removeprefix(PEFTS)}": value for key, value in weights.items()}
    return _flattened(updates_of(_pefts_names(weights), configs, file), parts)


def _pefts_config(file: str, part: str) -> dict[str, Any]:
    """What a PEFT folder says of its weights."""
    beside = f"{file.rpartition('/')[0]}/{CONFIG_NAME}"
    storage, name = open_storage(beside)
    try:
        said = json.loads(storage.cat_file(name))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{masked(beside)}: cannot be read ({first_line(error)}); expected PEFT's "
            "configuration of the adapter, which says its alpha. Fix: copy it beside the weights"
        ) from None
    return {f"{part}.{key}": value for key, value in said.items()}


def _flattened(updates: dict[str, Update], parts: Mapping[str, Any]) -> dict[str, Update]:
    """Updates by the names of today: transformers 5 took a level out of a text encoder's."""
    for part, model in parts.items():
        if not hasattr(model, "text_model"):
            old, new = f"{part}.text_model.", f"{part}."
            updates = {
                name.replace(old, new) if name.startswith(old) else name: update
                for name, update in updates.items()
            }
    return updates


def _pefts_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of diffusers' older and newer names under PEFT's; others are left alone."""
    text = {key: value for key, value in weights.items() if key.startswith("text_encoder")}
    text = convert_state_dict_to_diffusers(text, StateDictType.DIFFUSERS_OLD)
    text = convert_state_dict_to_peft(text, StateDictType.DIFFUSERS)
    other = {key: value for key, value in weights.items() if not key.startswith("text_encoder")}
    return convert_unet_state_dict_to_peft(other) | text


def _of_kohya(
    weights: Mapping[str, Tensor], file: str, config: Mapping[str, Any]
) -> dict[str, Update]:
    """The updates of kohya's names: a layer at a time, so that each keeps what is said of it."""
    if "layers_per_block" in config:  # SDXL's are those of its first code
        weights = _maybe_map_sgm_blocks_to_diffusers(dict(weights), SimpleNamespace(**config))
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        layer, _, kind = key.partition(".")
        layers.setdefault(layer, {})[kind] = tensor
    found = {}
    for layer, tensors in layers.items():
        name = _name_of(layer, tensors, file)
        A, B = tensors["lora_down.weight"], tensors["lora_up.weight"]
        alpha = float(tensors["alpha"]) if "alpha" in tensors else float(len(A))
        M = tensors.get("dora_scale")
        if M is not None and M.shape[0] != len(B):
            raise ModelError(
                f"{masked(file)}: {layer}.dora_scale has shape {tuple(M.shape)}, expected one "
                f"length for each of {len(B)} outputs, as lengths of columns are not known here. "
                "Fix: choose another file"
            )
        form = Form(len(A), alpha, dora=M is not None)
        found[name] = Update(form, A, B, None if M is None else M.flatten())
    return dict(sorted(found.items()))


def _name_of(layer: str, tensors: Mapping[str, Tensor], file: str) -> str:
    """diffusers' name of one of kohya's layers."""
    pair = {
        f"{layer}.{kind}": tensor for kind, tensor in tensors.items() if kind.startswith("lora_")
    }
    try:
        if tensors.keys() - {"lora_down.weight", "lora_up.weight", "alpha", "dora_scale"}:
            raise ValueError(", ".join(sorted(tensors)))
        converted, _ = _convert_non_diffusers_lora_to_diffusers(pair)
        named = {key.rpartition(".lora_")[0] for key in _pefts_names(converted)}
        (name,) = named
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"{masked(file)}: {layer} is no low-rank update that diffusers' converter reads "
            f"({first_line(error)}); expected lora_down, lora_up, alpha, dora_scale alone. Fix: "
            "choose a LoRA or DoRA file, not LoHa's, LoKr's or of other layers"
        ) from None
    return str(name)
