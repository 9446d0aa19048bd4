"""The first stage: adapters' files brought into one form, diffusers'.

Layers, ranks, scales and DoRA's lengths stay each file's own (`raysynth.adapters.foreign`); they
are mixed where they are drawn with (`adapters.banks.LoraBank.of_files`).
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from raysynth.adapters.files import write_updates
from raysynth.adapters.foreign import read_file, updates_in
from raysynth.errors import ModelError
from raysynth.models.base import described
from raysynth.models.family import KEY
from raysynth.models.loading import load_or_explain
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import known_family
from raysynth.prompt_runs.adapters import Adapters, find_adapters
from raysynth.prompt_runs.lora_file import TEXT, LoraFile
from raysynth.prompt_runs.prompts import read_prompts
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.stages.stage import Work
from raysynth.storage.files import open_storage, write_atomic
from raysynth.terminal import masked

SUMS = "sums.json"
"""Adapter -> SHA-256 of the file that it was read from."""
WRITERS = 4
"""Adapters that are held in memory at the same time."""


def network_of(base: BaseConfigSection) -> tuple[str, Any]:
    """The part that predicts, and the base's own, without weights.

    Raises ModelError: none of a known family, or not to be asked for.
    """
    family, config = load_or_explain(KEY, base.name, lambda: described(base))
    with torch.device("meta"):
        return family.roles["model"][0], family.build(dict(config))


def build(work: Work) -> dict[str, Any]:
    """Write every adapter to `<folder>/<name>`; facts: rows (adapters), sha256 of their files."""
    config = work.config
    assert isinstance(config, GenerateConfig)
    adapters = find_adapters(read_prompts(config).paths, numbers=False)
    part, network = network_of(config.base)
    work.progress.update("adapters", 0, len(adapters.files))

    def write(name: str) -> str:
        path = adapters.files[name].path
        data = _bytes(path)
        write_updates(updates_in(data, path, part, {part: network}), f"{work.folder}/{name}")
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
    part, network = network_of(base)
    known = {f"{part}.{name}": module for name, module in network.named_modules()}
    for name, file in adapters.files.items():
        if file.text and not family.text_targets:
            raise ModelError(
                f"{masked(file.path)}: adapts a text encoder; base.name is {family.title}, of "
                "whose text encoders diffusers reads no adapters. Fix: another file"
            )
        for layer, (inputs, outputs) in _sizes(file, part, network).items():
            if layer.startswith(TEXT):
                continue
            weight = getattr(known.get(layer), "weight", None)
            if weight is None:
                raise ModelError(
                    f"{masked(file.path)}: adapts {layer}, which the base has not. Fix: base.name="
                    f"<the base that {name} was trained on>"
                )
            expected = tuple(weight.shape[:2])
            if (outputs, inputs) != expected:
                raise ModelError(
                    f"{masked(file.path)}: {layer} has {inputs} inputs and {outputs} outputs, the "
                    f"base's has {expected[1]} and {expected[0]}. Fix: base.name=<the base that "
                    f"{name} was trained on>"
                )


def _sizes(file: LoraFile, part: str, network: Any) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every layer, by diffusers' name; kohya's files have to be read."""
    if not file.kohya:
        return {name: (layer.a[1], layer.b[0]) for name, layer in file.layers.items()}
    updates = read_file(file.path, part, {part: network})
    return {name: (update.A.shape[1], len(update.B)) for name, update in updates.items()}
