"""A residual network for small images, in torch alone: what training and shipped folders share.

It is copied beside shipped weights, so it imports nothing of raysynth.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Convolved = Callable[[int, int, int, int], nn.Conv2d]
"""(channels in, channels out, side of the kernel, stride) -> a convolution without bias."""


def convolution(inside: int, outside: int, kernel: int, stride: int) -> nn.Conv2d:
    """torch's own, with `kernel // 2` padding."""
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, the basic block)."""

    def __init__(self, inside: int, outside: int, stride: int, convolved: Convolved) -> None:
        """Channels in and out; `stride` of the first convolution."""
        super().__init__()
        self.convolution1 = convolved(inside, outside, 3, stride)
        self.norm1 = nn.BatchNorm2d(outside)
        self.convolution2 = convolved(outside, outside, 3, 1)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = convolved(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        # In place: a normalisation needs its input again, never its output.
        hidden = torch.relu_(self.norm1(self.convolution1(x)))
        return torch.relu_(self.norm2(self.convolution2(hidden)).add_(self.shortcut(x)))


class ResidualNetwork(nn.Module):
    """Residual network for small images: a strided stem, one block per width, mean pooling."""

    def __init__(
        self,
        widths: tuple[int, ...],
        channels: int,
        classes: int,
        convolved: Convolved = convolution,
    ) -> None:
        """Random weights; `widths`: channels of the stages, `channels`: of the images."""
        super().__init__()
        first = widths[0]
        self.stem = convolved(channels, first, 3, 2)
        self.norm = nn.BatchNorm2d(first)
        inside = (first, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                Block(before, width, 1 if stage == 0 else 2, convolved)
                for stage, (before, width) in enumerate(zip(inside, widths, strict=True))
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)
        self.apply(initialise)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, K]."""
        hidden = self.blocks(torch.relu_(self.norm(self.stem(pixel_values))))
        # A mean over [B, H * W, C] keeps the gradient's channels last, as the convolutions are.
        logits: Tensor = self.classifier(hidden.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1))
        return logits


def initialise(module: nn.Module) -> None:
    """Random weights of the small network's convolutions (He et al. 2015); others keep theirs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
