"""Bytes of the frozen weights that lie beside adapters in training: in 16 bits, or quantised."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import Training
from raysynth.models.family import FAMILIES, Family, reader_of
from raysynth.models.quantisation import bytes_of, is_quantised
from raysynth.models.settings import BaseConfigSection
from raysynth.planning.network_cost import UNetCost
from raysynth.planning.text_cost import weights_of

if TYPE_CHECKING:
    from raysynth.planning.sizes import Shape

BYTES = 2
"""Of a number in 16 bits."""
MADE = 4 + BYTES
"""Of a number of the one matrix that is made anew at a time: in float32, and rounded."""
Matrices = tuple[tuple[int, int], ...]
"""Outputs and inputs of linear layers."""


def held_bytes(
    base: BaseConfigSection,
    training: Training,
    settings: FinetuneConfig,
    cost: UNetCost,
    shape: Shape,
) -> float:
    """Encoders, and the network where it is frozen; a quantised one's largest layer made anew."""
    if training.engine != "lora":
        return shape.encoders
    held = shape.encoders + network_bytes(base, cost, shape)
    if not is_quantised(base):
        return held
    if settings.text_encoder:  # they are counted with the network
        for text in shape.texts:
            width, numbers = int(text["hidden_size"]), weights_of(text)
            held -= BYTES * numbers - bytes_of(base.quantization, numbers // width, width)
    largest = max((rows * columns for rows, columns in _of_network(shape)), default=0)
    return held + MADE * largest


def network_bytes(base: BaseConfigSection, cost: UNetCost, shape: Shape) -> float:
    """The network's weights as they are kept."""
    whole = float(BYTES * cost.parameters)
    return whole - _spared(base, _of_network(shape)) if is_quantised(base) else whole


def spared_of_texts(base: BaseConfigSection, family: Family, source: Path) -> float:
    """Bytes by which a folder's text encoders are smaller than their files."""
    if not is_quantised(base):
        return 0.0
    read, found = reader_of(source), 0.0
    for part in (name for name in family.roles["text"] if "tokenizer" not in name):
        size = sum(file.stat().st_size for file in (source / part).glob("*.safetensors"))
        kind = family.kind(part)
        config = kind.config_class.from_dict(dict(read(part) or {}))
        numbers, matrices = _built(partial(kind, config))
        found += _spared(base, matrices, round(size / numbers))  # without the file's header
    return found


def _spared(base: BaseConfigSection, matrices: Matrices, each: int = BYTES) -> float:
    """`each`: bytes of a number as it would be."""
    form = base.quantization
    return sum(each * rows * columns - bytes_of(form, rows, columns) for rows, columns in matrices)


def _of_network(shape: Shape) -> Matrices:
    return _matrices(shape.family.title, json.dumps(shape.network, sort_keys=True))


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
