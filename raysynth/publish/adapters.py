"""`raysynth export adapters`: LoRA files as other tools read them.

`kohya`: one file per adapter, by diffusers' own converter: kohya's names, which ComfyUI, A1111,
SD.Next and InvokeAI read, and diffusers. `peft`: diffusers' own form, as the run keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from diffusers.loaders.lora_pipeline import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import convert_state_dict_to_kohya
from torch import Tensor

from raysynth.adapters.grouped_lora import alpha_of
from raysynth.adapters.record import Adapter, read_adapters
from raysynth.classify.licences import of_model
from raysynth.config.config import Config
from raysynth.errors import ConfigError, DataError
from raysynth.finished import read_made, require_empty
from raysynth.models.hub import public_name
from raysynth.publish.rows import TUNED
from raysynth.storage.files import open_storage, write_atomic
from raysynth.terminal import clipped, masked, shown

CARD = """\
---
tags: [raysynth, lora, text-to-image, diffusers]
license: unknown
---
# Adapters of the run {run}

LoRA adapters of `{base}`, rank {rank}, alpha {alpha:g}, one for each part of the data set. Base
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
    if form not in WRITERS:
        raise ConfigError(f"--form: got {clipped(form)!r}, expected {' or '.join(WRITERS)}")
    require_empty(folder)
    made = read_made(config, "selection", (TUNED,))
    found = _adapters(made.folders)
    lines = []
    for name in (chosen := _chosen(only, found)):
        place, adapter = found[name]
        file = WRITERS[form](_read(f"{place}/{adapter.name}"), name, folder)
        lines.append(_line(file, adapter))
    card = _card(made.config, lines)
    write_atomic(f"{folder}/README.md", card.encode())
    return f"{len(chosen)} adapters ({form}): {masked(folder)}"


def _card(config: Config, lines: Sequence[str]) -> str:
    base, tuned = config.base, config.finetune
    return CARD.format(
        run=config.name,
        base=public_name(base.name),
        rank=tuned.rank,
        alpha=tuned.alpha,
        licence=of_model(base.name, base.revision),
        rows="\n".join(lines),
    )


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
    converted = to_kohya(safetensors.torch.load(data), alpha_of(data))
    write_atomic(
        f"{folder}/{name}.safetensors", safetensors.torch.save(converted, {"format": "pt"})
    )
    return f"{name}.safetensors"


WRITERS: dict[str, Callable[[bytes, str, str], str]] = {"kohya": _kohya, "peft": _peft}


def to_kohya(weights: Mapping[str, Tensor], alpha: float | None) -> dict[str, Tensor]:
    """PEFT's tensors under kohya's names.

    `alpha`: of the training; None: as large as the rank, which is what the converter says for any.
    """
    found: dict[str, Tensor] = convert_state_dict_to_kohya(dict(weights))
    for key, value in found.items():
        if key.endswith(".alpha"):
            found[key] = torch.tensor(float(value if alpha is None else alpha))
    return {key: value.contiguous() for key, value in found.items()}
