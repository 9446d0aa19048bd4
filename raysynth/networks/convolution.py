"""A convolution whose weights' gradient is a matrix product where oneDNN is slow: small images.

Measured in bfloat16 on a CPU with tiles, 64 images, one thread: of 128 channels at 4 x 4 positions
oneDNN takes 2.2 ms for the weights' gradient, which as a product of the output's gradient and the
patches takes 0.8 ms; of a strided 1 x 1 convolution both gradients take a third as long. A step of
the small network takes 27 ms instead of 31; products at 8 x 8 positions gain nothing more.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

POSITIONS = 16
"""Most output positions, of one image, of a convolution of more than one weight per channel."""


class Convolution(nn.Conv2d):
    """`nn.Conv2d` of square kernels, without bias and with `kernel // 2` padding."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1) -> None:
        """Channels in and out, sides of kernel and stride."""
        super().__init__(inside, outside, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        trained = torch.is_grad_enabled() and x.requires_grad and self.weight.requires_grad
        if not (trained and self._slow(x)):
            return super().forward(x)
        found: Tensor = _Convolved.apply(x, self.weight.to(x.dtype), self.stride[0])
        return found

    def _slow(self, x: Tensor) -> bool:
        """Whether oneDNN's gradients of such images are the slower ones."""
        if x.device.type != "cpu" or x.dtype != torch.bfloat16:
            return False
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel == 1:
            return stride > 1
        return -(-x.shape[2] // stride) * -(-x.shape[3] // stride) <= POSITIONS


class _Convolved(torch.autograd.Function):
    """B images, H W sides of the output, C channels in, O out, K weights per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[2] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, weight), stride = ctx.saved_tensors, ctx.stride
        outside, inside, kernel, _ = weight.shape
        told = gradient.permute(0, 2, 3, 1).reshape(-1, outside)  # [BHW, O], channels last: a view
        of_weight = told.T @ _patches(x, kernel, stride)  # [O, KKC]
        of_weight = of_weight.view(outside, kernel, kernel, inside).permute(0, 3, 1, 2)
        if kernel == 1:
            of_x = torch.zeros_like(x)  # channels last as x is
            places = told @ weight.view(outside, inside)
            shape = (*gradient.shape[:1], *gradient.shape[2:], inside)
            of_x[:, :, ::stride, ::stride] = places.view(shape).permute(0, 3, 1, 2)
            return of_x, of_weight, None
        padding = kernel // 2
        of_x = conv2d_input(x.shape, weight, gradient, stride, padding)
        return of_x, of_weight, None


def _patches(x: Tensor, kernel: int, stride: int) -> Tensor:
    """[BHW, KKC] what each output position sees."""
    last = x.permute(0, 2, 3, 1)
    if kernel == 1:
        return last[:, ::stride, ::stride].reshape(-1, x.shape[1])
    around = kernel // 2
    padded = F.pad(last, (0, 0, around, around, around, around))
    windows = padded.unfold(1, kernel, stride).unfold(2, kernel, stride)  # [B, H, W, C, K, K]
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, kernel * kernel * x.shape[1])
