"""The first stage: adapters' files brought into one shape, in which they are stacked and mixed.

A layer that only others adapt has zeros; a smaller rank is filled up with zeros, which add nothing;
a scale is folded into its B, h = W0 x + (s B) A x. So each is still a LoRA file of diffusers' form.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from raysynth.errors import ModelError
from raysynth.models.family import reader_of
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import known_family, resolve
from raysynth.prompt_runs.adapters import WEIGHTS, Adapters, find_adapters
from raysynth.prompt_runs.lora_file import TEXT, A, B, LoraFile
from raysynth.prompt_runs.prompts import read_prompts
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.stages.stage import Work
from raysynth.storage.files import open_storage, write_atomic
from raysynth.storage.hashes import note_bytes
from raysynth.terminal import masked

SUMS = "sums.json"
"""Adapter -> SHA-256 of the file that it was read from."""
WRITERS = 4
"""Adapters that are held in memory at the same time."""


def stacked(file: LoraFile, data: bytes, all_of: Adapters) -> dict[str, Tensor]:
    """The tensors of a file as every adapter of a run has them."""
    given = safetensors.torch.load(data)
    rank, found = all_of.shape.rank, {}
    for name, layer in all_of.layers.items():
        own = file.layers.get(name)
        a, b = (rank, *layer.a[1:]), (layer.b[0], rank, *layer.b[2:])
        if own is None:
            found[f"{name}{A}"], found[f"{name}{B}"] = torch.zeros(a), torch.zeros(b)
            continue
        A_rI, B_Or = given[f"{name}{A}"], given[f"{name}{B}"]
        if own.scale != 1:
            B_Or = B_Or.float() * own.scale
        if own.rank < rank:
            A_rI = torch.cat([A_rI, A_rI.new_zeros(rank - own.rank, *A_rI.shape[1:])])
            more = B_Or.new_zeros(len(B_Or), rank - own.rank, *B_Or.shape[2:])
            B_Or = torch.cat([B_Or, more], 1)
        found[f"{name}{A}"], found[f"{name}{B}"] = A_rI.contiguous(), B_Or.contiguous()
    return found


def build(work: Work) -> dict[str, Any]:
    """Write every adapter to `<folder>/<name>`; facts: rows (adapters), sha256 of their files."""
    config = work.config
    assert isinstance(config, GenerateConfig)
    adapters = find_adapters(read_prompts(config).paths)
    work.progress.update("adapters", 0, len(adapters.files))

    def write(name: str) -> str:
        data = _bytes(adapters.files[name].path)
        folder = f"{work.folder}/{name}"
        whole = safetensors.torch.save(stacked(adapters.files[name], data, adapters))
        write_atomic(f"{folder}/{WEIGHTS}", whole)
        note_bytes(folder, WEIGHTS, whole)
        return hashlib.sha256(data).hexdigest()

    sums = {}
    with ThreadPoolExecutor(WRITERS) as writers:
        for name, sha256 in zip(adapters.files, writers.map(write, adapters.files), strict=True):
            sums[name] = sha256
            work.progress.update("adapters", len(sums), len(adapters.files))
    write_atomic(f"{work.folder}/{SUMS}", json.dumps(sums).encode())
    return {"rows": len(sums), "adapters": sums}


def _bytes(path: str) -> bytes:
    storage, name = open_storage(path)
    return bytes(storage.cat_file(name))


def check_adapters(adapters: Adapters, base: BaseConfigSection) -> None:
    """Refuse adapters of layers that a base's network has not, or of other sizes; ModelError.

    The network is laid out without weights; what a hub id has is known when it is loaded.
    """
    family = known_family(base)
    if family is None:
        return
    part = family.roles["model"][0]
    config = reader_of(Path(resolve(base.name)))(part) or {}
    with torch.device("meta"):
        network = family.build(dict(config))
    known = {f"{part}.{name}": module for name, module in network.named_modules()}
    for name, file in adapters.files.items():
        if file.text and not family.text_targets:
            raise ModelError(
                f"{masked(file.path)}: adapts a text encoder; base.name is {family.title}, of "
                "whose text encoders diffusers reads no adapters. Fix: another file"
            )
        for layer, found in file.layers.items():
            if layer.startswith(TEXT):
                continue
            weight = getattr(known.get(layer), "weight", None)
            if weight is None:
                raise ModelError(
                    f"{masked(file.path)}: adapts {layer}, which the base has not. Fix: base.name="
                    f"<the base that {name} was trained on>"
                )
            expected, size = tuple(weight.shape[:2]), (found.b[0], found.a[1])
            if size != expected:
                raise ModelError(
                    f"{masked(file.path)}: {layer} has {size[1]} inputs and {size[0]} outputs, the "
                    f"base's has {expected[1]} and {expected[0]}. Fix: base.name=<the base that "
                    f"{name} was trained on>"
                )
