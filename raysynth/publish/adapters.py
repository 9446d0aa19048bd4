"""`raysynth export adapters`: LoRA files as other tools read them.

`kohya`: one file per adapter, by diffusers' own converter: kohya's names, which ComfyUI, A1111,
SD.Next and InvokeAI read, and diffusers; a transformer's are `adapters.transformer_files`.
`peft`: diffusers' own form, as the run keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from diffusers.loaders.lora_pipeline import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import convert_state_dict_to_kohya
from torch import Tensor

from raysynth.adapters.files import Updates, configs_of, updates_of
from raysynth.adapters.layers import Form
from raysynth.adapters.record import Adapter, read_adapters
from raysynth.adapters.transformer_files import is_transformers, to_single
from raysynth.classify.licences import of_model
from raysynth.config.config import Config
from raysynth.errors import ConfigError, DataError
from raysynth.finished import read_made, require_empty
from raysynth.models.hub import public_name
from raysynth.models.quantisation import in_words
from raysynth.publish.rows import TUNED
from raysynth.storage.files import exists, open_storage, write_atomic
from raysynth.terminal import clipped, masked, shown

CARD = """\
---
tags: [raysynth, lora, text-to-image, diffusers]
license: unknown
---
# Adapters of the run {run}

{kind} adapters of {base}, rank {rank}, alpha {alpha}, one for each part of the data set. Base
model's licence: {licence}.

| file | was trained on | images | prompt |
| --- | --- | --- | --- |
{rows}
"""


def export_adapters(
    config: Config, folder: str, form: str = "kohya", only: Sequence[str] = ()
) -> str:
    """Write a run's LoRA adapters to a new or empty folder or URI; says what was written.

    Parameters
    ----------
    config : the run's, or its name and storage only.
    form : `kohya` or `peft`.
    only : names of adapters; none: all.

    Raises
    ------
    ConfigError
        No such form or adapter, no finished run of these settings, models that are no adapters, or
        a folder that is not empty.
    DataError
        An adapter's file is not what was written.
    """
    _check(form, folder)
    made = read_made(config, "selection", (TUNED,))
    return _export(made.config, _adapters(made.folders), folder, form, only)


def export_trained(config: Config, folder: str, form: str, only: Sequence[str] = ()) -> str:
    """The same of a run of `raysynth train`, by its configuration; raises as `export_adapters`."""
    _check(form, folder)
    place = f"{config.root}/adapters"
    if not exists(f"{place}/adapters.json"):
        raise ConfigError(
            f"{masked(config.root)}: not all adapters are trained yet. Fix: raysynth resume "
            f"{masked(config.root)}"
        )
    return _export(config, _adapters({"": place}), folder, form, only)


def _check(form: str, folder: str) -> None:
    if form not in WRITERS:
        raise ConfigError(f"--form: got {clipped(form)!r}, expected {' or '.join(WRITERS)}")
    require_empty(folder)


def _export(
    config: Config,
    found: Mapping[str, tuple[str, Adapter]],
    folder: str,
    form: str,
    only: Sequence[str],
) -> str:
    lines, forms = [], set[Form]()
    for name in (chosen := _chosen(only, found)):
        place, adapter = found[name]
        data = _read(f"{place}/{adapter.name}")
        updates = updates_of(safetensors.torch.load(data), configs_of(data), name)
        forms |= {update.form for update in updates.values()}
        lines.append(_line(WRITERS[form](data, name, folder), adapter))
    card = _card(config, forms, lines)
    write_atomic(f"{folder}/README.md", card.encode())
    return f"{len(chosen)} adapters ({form}): {masked(folder)}"


def _card(config: Config, forms: Collection[Form], lines: Sequence[str]) -> str:
    base = config.base
    return CARD.format(
        run=config.name,
        kind="DoRA" if any(form.dora for form in forms) else "LoRA",
        base=f"`{public_name(base.name)}`{in_words(base)}",
        rank=_span([form.rank for form in forms]),
        alpha=_span([form.plain.alpha for form in forms]),
        licence=of_model(base.name, base.revision),
        rows="\n".join(lines),
    )


def _span(values: Sequence[float]) -> str:
    least, most = min(values), max(values)
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _adapters(folders: Mapping[str, str]) -> dict[str, tuple[str, Adapter]]:
    """Name -> folder of its fine-tuning, and record; several generators' have theirs before it.

    `folders`: stage -> its folder.
    """
    several = len(folders) > 1
    return {
        f"{stage.partition('/')[2]}-{each.name}" if several else each.name: (place, each)
        for stage, place in folders.items()
        for each in read_adapters(place)
        if each.engine == "lora"
    }


def _chosen(only: Sequence[str], found: Mapping[str, Any]) -> list[str]:
    if not found:
        raise ConfigError(
            "adapters: this run has none: its generator trains no LoRA. Fix: export images, or a "
            "trained method"
        )
    for name in only:
        if name not in found:
            raise ConfigError(
                f"--only: got {clipped(shown(name))!r}; expected one of {', '.join(found)}. Fix: "
                "one of these"
            )
    return list(only or found)


def _line(file: str, adapter: Adapter) -> str:
    words = " / ".join(word for word in (adapter.label, adapter.attribute) if word) or "all groups"
    part = f", cluster {adapter.cluster}" if adapter.cluster >= 0 else ""
    return f"| `{file}` | {words}{part} | {adapter.images} | {adapter.prompt} |"


def _read(folder: str) -> bytes:
    """The bytes of an adapter's file."""
    storage, name = open_storage(f"{folder}/{LORA_WEIGHT_NAME_SAFE}")
    try:
        return storage.cat_file(name)
    except FileNotFoundError:
        raise DataError(
            f"{masked(folder)}/{LORA_WEIGHT_NAME_SAFE} is missing; expected the adapter. Fix: "
            "raysynth verify RUN --redo finetune, then run it again"
        ) from None


def _peft(data: bytes, name: str, folder: str) -> str:
    write_atomic(f"{folder}/{name}/{LORA_WEIGHT_NAME_SAFE}", data)
    return f"{name}/{LORA_WEIGHT_NAME_SAFE}"


def _kohya(data: bytes, name: str, folder: str) -> str:
    converted = to_kohya(updates_of(safetensors.torch.load(data), configs_of(data), name))
    write_atomic(
        f"{folder}/{name}.safetensors", safetensors.torch.save(converted, {"format": "pt"})
    )
    return f"{name}.safetensors"


WRITERS: dict[str, Callable[[bytes, str, str], str]] = {"kohya": _kohya, "peft": _peft}


def to_kohya(updates: Updates) -> dict[str, Tensor]:
    """Updates as kohya's tensors, by diffusers' own converter of names; see `to_single` too.

    Each layer has its alpha; of rsLoRA, which kohya's form does not know, the one that scales as
    much. The lengths of DoRA's rows are `dora_scale` [O, 1, ...], as LyCORIS writes them.
    """
    if is_transformers(updates):
        return to_single(updates)
    found: dict[str, Tensor] = {}
    for name, update in updates.items():
        pair = {f"{name}.lora_A.weight": update.A, f"{name}.lora_B.weight": update.B}
        layer: dict[str, Tensor] = convert_state_dict_to_kohya(pair)
        key = next(key for key in layer if key.endswith(".alpha"))
        layer[key] = torch.tensor(float(update.form.plain.alpha))
        if update.M is not None:
            shape = (-1, *[1] * (update.A.ndim - 1))
            layer[key.replace(".alpha", ".dora_scale")] = update.M.reshape(shape)
        found |= layer
    return {key: value.contiguous() for key, value in found.items()}
