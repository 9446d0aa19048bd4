"""Linear layers of a base's networks, from configurations alone, and what they take quantised."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from raysynth.models.family import FAMILIES, Family, reader_of
from raysynth.models.quantisation import bytes_of, is_quantised
from raysynth.models.settings import BaseConfigSection

BYTES = 2
"""Of a number in 16 bits."""
Matrices = tuple[tuple[int, int], ...]
"""Outputs and inputs of linear layers."""


def spared(form: str, matrices: Matrices, each: int = BYTES) -> int:
    """Bytes by which layers are smaller in a form; `each`: of a number as it would be."""
    return sum(each * rows * columns - bytes_of(form, rows, columns) for rows, columns in matrices)


def spared_of_texts(base: BaseConfigSection, family: Family, source: Path) -> int:
    """Bytes by which a folder's text encoders are smaller than their files."""
    if not is_quantised(base):
        return 0
    read, found = reader_of(source), 0
    for part in (name for name in family.roles["text"] if "tokenizer" not in name):
        size = sum(file.stat().st_size for file in (source / part).glob("*.safetensors"))
        kind = family.kind(part)
        config = kind.config_class.from_dict(dict(read(part) or {}))
        numbers, matrices = _built(partial(kind, config))
        each = round(size / numbers)  # without the file's header
        found += spared(base.quantization, matrices, each)
    return found


def matrices_of(family: Family, network: dict[str, Any]) -> Matrices:
    """The linear layers of the network of a configuration."""
    return _matrices(family.title, json.dumps(network, sort_keys=True))


@cache
def _matrices(title: str, network: str) -> Matrices:
    family = next(family for family in FAMILIES.each() if family.title == title)
    return _built(partial(family.build, json.loads(network)))[1]


def _built(build: Callable[[], Any]) -> tuple[int, Matrices]:
    """Numbers of a model, and its linear layers; made without any weights."""
    import torch

    with torch.device("meta"):
        model = build()
    layers = (layer for layer in model.modules() if type(layer) is torch.nn.Linear)
    found = tuple((layer.out_features, layer.in_features) for layer in layers)
    return sum(parameter.numel() for parameter in model.parameters()), found
