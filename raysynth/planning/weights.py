"""Bytes of the frozen weights that lie beside adapters in training: in 16 bits, or quantised."""

from __future__ import annotations

from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import Training
from raysynth.models.quantisation import bytes_of, is_quantised
from raysynth.models.settings import BaseConfigSection
from raysynth.planning.matrices import BYTES, matrices_of, spared
from raysynth.planning.network_cost import UNetCost
from raysynth.planning.sizes import Shape
from raysynth.planning.text_cost import weights_of

MADE = 4 + BYTES
"""Bytes of a number of the one matrix that is made anew at a time: in float32, and rounded."""


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
    matrices = matrices_of(shape.family, shape.network)
    return held + MADE * max((rows * columns for rows, columns in matrices), default=0)


def network_bytes(base: BaseConfigSection, cost: UNetCost, shape: Shape) -> float:
    """The network's weights as they are kept."""
    whole = float(BYTES * cost.parameters)
    if not is_quantised(base):
        return whole
    return whole - spared(base.quantization, matrices_of(shape.family, shape.network))
