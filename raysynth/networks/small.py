"""The small residual network, and the weights of it that are shipped."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from raysynth.networks.convolution import Convolution

NORMALISATION = 0.5
"""Mean and standard deviation of the small network's normalisation: pixels to [-1, 1]."""


WEIGHTS = Path(__file__).parents[1] / "models" / "small"
"""Shipped weights of the small network, see `pretraining.network`."""


EMBEDDED_WIDTHS = (32, 64, 128)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, the basic block)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        """Channels in and out; `stride` of the first convolution."""
        super().__init__()
        self.convolution1 = Convolution(inside, outside, 3, stride)
        self.norm1 = nn.BatchNorm2d(outside)
        self.convolution2 = Convolution(outside, outside, 3, 1)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = Convolution(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        # In place: a normalisation needs its input again, never its output.
        hidden = torch.relu_(self.norm1(self.convolution1(x)))
        return torch.relu_(self.norm2(self.convolution2(hidden)).add_(self.shortcut(x)))


class SmallNetwork(nn.Module):
    """Residual network for small images: a strided stem, one block per width, mean pooling."""

    def __init__(self, widths: tuple[int, ...], channels: int, classes: int) -> None:
        """Random weights; `widths`: channels of the stages, `channels`: of the images."""
        super().__init__()
        first = widths[0]
        self.stem = Convolution(channels, first, 3, 2)
        self.norm = nn.BatchNorm2d(first)
        inside = (first, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                Block(before, width, 1 if stage == 0 else 2)
                for stage, (before, width) in enumerate(zip(inside, widths, strict=True))
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)
        self.apply(initialise)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, K]."""
        hidden = self.blocks(torch.relu_(self.norm(self.stem(pixel_values))))
        # A mean over [B, H * W, C] keeps the gradient's channels last, as the convolutions are.
        return self.classifier(hidden.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1))


def initialise(module: nn.Module) -> None:
    """Random weights of the small network's convolutions (He et al. 2015); others keep theirs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def load_embedded(network: SmallNetwork, name: str) -> None:
    """Put shipped weights into the encoder of a small network; its head stays as it is."""
    found = safetensors.torch.load_file(WEIGHTS / f"{name}.safetensors")
    encoder = {key: value for key, value in found.items() if not key.startswith("classifier.")}
    state = network.state_dict()
    network.load_state_dict(state | {key: v.to(state[key].dtype) for key, v in encoder.items()})
