"""The record of a trained adapter: what it was trained on, and its file on disk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from raysynth.errors import DamagedError, DataError, ModelError
from raysynth.models.hub import public_name
from raysynth.storage.files import exists, read_json, write_atomic
from raysynth.storage.marks import Maker
from raysynth.terminal import masked

RECORD, CHECKPOINT = "adapter.json", "checkpoint.safetensors"
"""Files of an adapter's folder: what says that it is complete, and what its training goes on from.
"""

FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and PEFT call an adapter's file in a folder."""


def file_of(path: str) -> str:
    """The file of an adapter's path or URI, which is a folder or the file itself.

    Raises ModelError: nothing is there.
    """
    single = path.endswith(".safetensors")
    names = [path] if single else [f"{path.rstrip('/')}/{name}" for name in FILES]
    for name in names:
        if exists(name):
            return name
    raise ModelError(
        f"no adapter at {masked(path)}; expected a .safetensors file, or a folder with "
        f"{' or '.join(FILES)}. Fix: check the path"
    )


@dataclass(frozen=True)
class LoraShape:
    """What a run's adapters look like."""

    targets: tuple[str, ...]
    """Kinds of layers, as the base's family calls them."""
    rank: int
    """The highest that one has."""
    alpha: float
    text: bool = False
    """Whether they are on the text encoder too."""
    dora: bool = False
    """Whether the lengths of rows are their own."""
    started: bool = False
    """Whether they began as a given adapter, which has layers and ranks of its own."""
    each: bool = False
    """Whether each has layers, ranks and a form of its own."""

    @classmethod
    def of(cls, finetune: Any) -> LoraShape:
        """Of the section of that name, of a room above."""
        return cls(
            finetune.targets,
            finetune.most_rank,
            finetune.alpha,
            finetune.text_encoder,
            finetune.dora,
            finetune.start is not None,
        )


@dataclass(frozen=True)
class Adapter:
    """What one fine-tuning produced, as `adapters.json` and `<name>/adapter.json` record it."""

    name: str
    engine: str
    """lora: PEFT weights in the folder; full: `unet/` in the folder."""
    scope: str
    """What it was trained on: see `generators.recipe.Training`."""
    group: int
    """Group, -1 for one that speaks for several."""
    cluster: int
    """Cluster within the group (0 for a whole group), -1 for one that speaks for several."""
    label: str
    """Name of its label; "" for one that speaks for several."""
    attribute: str
    """Name of its attribute; "" for one that speaks for several."""
    prompt: str
    """Training prompt; "" for one trained on every group's own (`prompts.spoken`)."""
    images: int
    """Training images."""
    steps: int
    """Optimizer steps taken."""
    loss: float
    """Mean training loss over the last tenth of the steps."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Term of the loss -> its part of it, over the same steps; written only where there are any."""
    parent: str = ""
    """Adapter that it went on from, of an expert for a part of the noise levels."""


WEIGHTS = ".safetensors"
OPTIONAL = ("terms", "parent")
"""Written only where there is something to say."""


def maker_of(base: Any, hashes: Mapping[str, str]) -> Maker:
    """What images say of the models behind them.

    `base`: the section of that name. `hashes`: file below the fine-tuning stage's folder ->
    SHA-256; an adapter whose weights are several files is said by its name alone.
    """
    found: dict[str, list[str]] = {}
    for file, sha256 in hashes.items():
        if "/" in file and file.endswith(WEIGHTS) and not file.endswith(f"/{CHECKPOINT}"):
            found.setdefault(file.partition("/")[0], []).append(sha256)
    single = {name: of[0] for name, of in found.items() if len(of) == 1}
    return Maker(public_name(base.name), base.revision or "", single)


def write_adapters(adapters: Sequence[Adapter], folder: str) -> None:
    """Write `adapters.json`, which says that the stage's folder is complete."""
    text = json.dumps([_record_of(adapter) for adapter in adapters], indent=1)
    write_atomic(f"{folder}/adapters.json", text.encode())


def read_adapters(folder: str) -> list[Adapter]:
    """The adapters of a finished stage's folder or URI.

    Raises
    ------
    DamagedError
        `adapters.json` is missing, or not what `write_adapters` wrote.
    """
    path, records = f"{folder}/adapters.json", None
    with contextlib.suppress(DataError):
        records = read_json(path)
    found = [_adapter_of(record) for record in records] if isinstance(records, list) else [None]
    adapters = [adapter for adapter in found if adapter is not None]
    if len(adapters) < len(found):
        raise DamagedError(
            f"{masked(path)}: not there, or not the list of a fine-tuning's adapters. Fix: delete "
            "it, and run again: the stage is made again",
            path,
        )
    return adapters


def write_adapter(adapter: Adapter, folder: str) -> None:
    """Write `adapter.json`, which says that this adapter's folder is complete."""
    write_atomic(f"{folder}/{RECORD}", json.dumps(_record_of(adapter), indent=1).encode())


def read_adapter(folder: str) -> Adapter | None:
    """The record of a trained adapter's folder; None while it is not complete, or not readable."""
    with contextlib.suppress(DataError):  # trained again
        return _adapter_of(read_json(f"{folder}/{RECORD}"))
    return None


def _record_of(adapter: Adapter) -> dict[str, Any]:
    record = asdict(adapter)
    return {key: value for key, value in record.items() if value or key not in OPTIONAL}


def _adapter_of(record: Any) -> Adapter | None:
    """An adapter's record from its JSON; None for what is none."""
    kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float)}
    named = {
        field.name: kinds[str(field.type)]
        for field in fields(Adapter)
        if field.name not in OPTIONAL
    }
    if not isinstance(record, dict) or record.keys() - set(OPTIONAL) != named.keys():
        return None
    if not all(isinstance(record[name], kind) for name, kind in named.items()):
        return None
    terms = record.get("terms", {})
    if not isinstance(record.get("parent", ""), str):
        return None
    if not isinstance(terms, dict) or not all(isinstance(v, int | float) for v in terms.values()):
        return None
    return Adapter(**record)
