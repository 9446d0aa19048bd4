"""The small residual network, and the weights of it that are shipped."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from raysynth.networks.convolution import Convolution
from raysynth.networks.residual import ResidualNetwork

NORMALISATION = 0.5
"""Mean and standard deviation of the small network's normalisation: pixels to [-1, 1]."""


WEIGHTS = Path(__file__).parents[1] / "models" / "small"
"""Shipped weights of the small network, see `pretraining.network`."""


class SmallNetwork(ResidualNetwork):
    """The residual network, with convolutions that are trained fast on CPUs."""

    def __init__(self, widths: tuple[int, ...], channels: int, classes: int) -> None:
        """Random weights; `widths`: channels of the stages, `channels`: of the images."""
        super().__init__(widths, channels, classes, Convolution)


def load_embedded(network: SmallNetwork, name: str) -> None:
    """Put shipped weights into the encoder of a small network; its head stays as it is."""
    found = safetensors.torch.load_file(WEIGHTS / f"{name}.safetensors")
    encoder = {key: value for key, value in found.items() if not key.startswith("classifier.")}
    state = network.state_dict()
    network.load_state_dict(state | {key: v.to(state[key].dtype) for key, v in encoder.items()})
