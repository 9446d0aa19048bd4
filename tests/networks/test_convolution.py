"""The faster gradients of small images are those of torch's convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raysynth.networks.convolution import POSITIONS, Convolution, _Convolved


def gradients(convolution: nn.Conv2d, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(x)
    weights = torch.linspace(-1, 1, out[0].numel()).reshape(out[0].shape)
    (out.float() * weights).sum().backward()
    assert x.grad is not None and convolution.weight.grad is not None
    return [out, x.grad, convolution.weight.grad]


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "own"),
    [(3, 1, 4, True), (3, 2, 8, True), (1, 2, 8, True), (1, 2, 5, True), (3, 1, 8, False)],
)
def test_output_and_gradients_are_torchs(kernel, stride, side, own):
    torch.manual_seed(0)
    ours = Convolution(16, 24, kernel, stride).to(memory_format=torch.channels_last)
    theirs = nn.Conv2d(16, 24, kernel, stride, kernel // 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    theirs.to(memory_format=torch.channels_last)
    x = torch.randn(6, 16, side, side).bfloat16()
    found, known = gradients(ours, x), gradients(theirs, x)
    assert (type(found[0].grad_fn).__name__ == "_ConvolvedBackward") is own
    assert torch.equal(found[0], known[0])
    for one, other in zip(found[1:], known[1:], strict=True):
        assert one.dtype == other.dtype
        assert (one.float() - other.float()).norm() < 0.01 * other.float().norm()


def test_in_float64_they_are_the_derivatives():
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    for kernel, stride in ((3, 1), (3, 2), (1, 2)):
        weight = torch.randn(4, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, w, s=stride: _Convolved.apply(x, w, s), (x, weight)
        )


def test_other_images_precisions_and_evaluation_are_left_to_torch():
    layer = Convolution(4, 4, 3)
    small = torch.randn(1, 4, 4, 4, requires_grad=True)
    assert small[0, 0].numel() == POSITIONS
    assert "Convolved" not in type(layer(small).grad_fn).__name__  # float32
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert layer(small.bfloat16()).grad_fn is None
