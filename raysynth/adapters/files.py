"""An adapter's file as PEFT and diffusers write it: tensors, and metadata that say their form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from torch import Tensor

from raysynth.adapters.damaged import AGAIN, check_finite
from raysynth.adapters.layers import Form
from raysynth.errors import DamagedError, ModelError
from raysynth.models.headers import LENGTH, header_of, metadata_of
from raysynth.storage.files import make_folder, open_storage, write_atomic
from raysynth.storage.hashes import note_bytes
from raysynth.terminal import masked

KINDS = {"A.weight": "A", "B.weight": "B", "magnitude_vector": "M", "magnitude_vector.weight": "M"}
"""What tensors are, by the ends of their names after `.lora_`."""


@dataclass(frozen=True)
class Update:
    """One adapter's update of one layer."""

    form: Form
    A: Tensor
    """[r, I, ...]."""
    B: Tensor
    """[O, r, ...]."""
    M: Tensor | None = None
    """[O] lengths of the weights' rows, of DoRA."""


Updates = Mapping[str, Update]
"""By the layers' names, which begin with their part of the model."""


def write_updates(updates: Updates, folder: str) -> None:
    """Write an adapter as `pytorch_lora_weights.safetensors` into a folder or URI, whole.

    A pipeline's `load_lora_weights(folder)` reads it.
    """
    weights = {}
    for name, update in updates.items():
        weights[f"{name}.lora_A.weight"] = update.A.contiguous()
        weights[f"{name}.lora_B.weight"] = update.B.contiguous()
        if update.M is not None:  # PEFT's has the shape of what it scales
            shape = (1, -1, 1, 1) if update.A.ndim == 4 else (-1,)
            own = f"{name}.lora_magnitude_vector"
            own += ".weight" * name.startswith("text_encoder")  # transformers reads no other
            weights[own] = update.M.reshape(shape).contiguous()
    metadata = json.dumps(
        _settings({name: update.form for name, update in updates.items()}),
        default=lambda v: sorted(v) if isinstance(v, set) else str(v),
        sort_keys=True,
    )
    data = _in_order(
        safetensors.torch.save(weights, {"format": "pt", LORA_ADAPTER_METADATA_KEY: metadata})
    )
    make_folder(folder)
    write_atomic(f"{folder}/{LORA_WEIGHT_NAME_SAFE}", data)
    note_bytes(folder, LORA_WEIGHT_NAME_SAFE, data)


def _in_order(data: bytes) -> bytes:
    """The file with its metadata sorted: safetensors writes them in another order each time."""
    header, start = header_of(data)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    said = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    said += b" " * (-len(said) % LENGTH)  # tensors begin at whole words
    return len(said).to_bytes(LENGTH, "little") + said + data[start:]


def _settings(forms: Mapping[str, Form]) -> dict[str, Any]:
    """PEFT's configuration of each adapted part of the model, `<part>.<key>`."""
    parts: dict[str, dict[str, Form]] = {}
    for name in sorted(forms):
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = forms[name]
    return {
        f"{part}.{key}": value
        for part, own in parts.items()
        for key, value in _config_of(own).to_dict().items()
    }


def _config_of(forms: Mapping[str, Form]) -> LoraConfig:
    """PEFT's configuration of the layers of one part: what most have, and others by pattern."""
    if len({form.rslora for form in forms.values()}) > 1:
        forms = {name: form.plain for name, form in forms.items()}
    rank, alpha = (
        Counter(getattr(form, name) for form in forms.values()).most_common(1)[0][0]
        for name in ("rank", "alpha")
    )
    return LoraConfig(
        r=rank,
        lora_alpha=_whole(alpha),
        target_modules=list(forms),
        rank_pattern={f"^{n}": form.rank for n, form in forms.items() if form.rank != rank},
        alpha_pattern={
            f"^{n}": _whole(form.alpha) for n, form in forms.items() if form.alpha != alpha
        },
        use_rslora=next(iter(forms.values())).rslora,
        use_dora=any(form.dora for form in forms.values()),
    )


def read_updates(folder: str, alpha: float | None = None) -> dict[str, Update]:
    """Read what `write_updates` wrote.

    `alpha`: of files that do not say; None: as large as the rank.

    Raises
    ------
    DamagedError
        It is not whole, or holds what is no number.
    ModelError
        The storage gives nothing.
    """
    file = f"{folder}/{LORA_WEIGHT_NAME_SAFE}"
    storage, path = open_storage(file)
    try:
        data = storage.cat_file(path)
        weights = safetensors.torch.load(data)
    except (OSError, safetensors.SafetensorError) as error:
        reason = f"{masked(file)}: cannot be read ({masked(str(error))}); expected an adapter"
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise ModelError(f"{reason}. Fix: see to the storage, and run again") from None
        raise DamagedError(f"{reason}. Fix: {AGAIN}", file) from None
    check_finite(weights, file)
    return updates_of(weights, configs_of(data), file, alpha)


def updates_of(
    weights: Mapping[str, Tensor],
    configs: Mapping[str, Any],
    where: str,
    alpha: float | None = None,
) -> dict[str, Update]:
    """The updates of tensors under PEFT's names.

    Parameters
    ----------
    configs : `<part>.<key>` -> value of PEFT's configuration, see `configs_of`.
    where : the file, for messages.
    alpha : see `read_updates`.

    Raises
    ------
    ModelError
        Tensors that are no update's, or layers without both their matrices.
    """
    found: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in weights.items():
        name, dot, end = key.rpartition(".lora_")
        if (kind := KINDS.get(end)) and dot:
            found.setdefault(name, {})[kind] = tensor
        else:
            strange.append(key)
    strange += [name for name, parts in found.items() if not {"A", "B"} <= parts.keys()]
    if strange or not found:
        raise ModelError(
            f"{masked(where)}: {len(strange)} of {len(weights)} tensors are no low-rank update, "
            f"e.g. {', '.join(sorted(strange)[:3]) or 'there is none'}; expected pairs of matrices "
            "for layers, in the form of PEFT, diffusers or kohya. Fix: choose a LoRA or DoRA file"
        )
    return {name: _update(name, found[name], configs, alpha) for name in sorted(found)}


def _update(
    name: str, tensors: Mapping[str, Tensor], configs: Mapping[str, Any], alpha: float | None
) -> Update:
    part, _, own = name.partition(".")
    rank = tensors["A"].shape[0]
    said = configs.get(f"{part}.lora_alpha")
    if said is not None:
        patterns = configs.get(f"{part}.alpha_pattern") or {}
        said = patterns.get(get_pattern_key(list(patterns), own), said)
    own_alpha = next((float(v) for v in (said, alpha) if v is not None), float(rank))
    rslora = bool(configs.get(f"{part}.use_rslora"))
    form = Form(rank, own_alpha, rslora, dora="M" in tensors)
    M = tensors["M"].flatten() if "M" in tensors else None
    return Update(form, tensors["A"], tensors["B"], M)


def configs_of(data: bytes) -> dict[str, Any]:
    """PEFT's configuration in the metadata of an adapter's file; empty where it does not say."""
    configs: dict[str, Any] = json.loads(metadata_of(data).get(LORA_ADAPTER_METADATA_KEY, "{}"))
    return configs


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value
