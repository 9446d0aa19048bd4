"""The linear head of a network: which layer it is, its weights, and models without one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from raysynth.errors import ModelError, first_line


def linear_head(model: nn.Module, classes: int) -> nn.Linear:
    """The linear layer that makes the logits: the last one with as many outputs as labels.

    Raises
    ------
    ModelError
        When there is none, so that no head could be refitted on frozen features; see also
        `check_head`.
    """
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    if not linear:
        raise ModelError(
            f"classifier.backbone: {type(model).__name__} has no linear layer with {classes} "
            "outputs, so stage 2 has no head to fit. Fix: choose a model with a linear head"
        )
    return linear[-1]


def check_head(name: str, head: nn.Linear, features: Tensor | None, logits: Tensor) -> None:
    """Raise ModelError unless the logits [B, K] of a model are `head` of its features [B, D]."""
    if features is not None and features.ndim == 2:
        difference = float((head(features) - logits).abs().max())
        if difference <= 1e-3 * max(1.0, float(logits.abs().max())):
            return
    raise several_heads(name)


def several_heads(name: str) -> ModelError:
    """The refusal of a model whose logits are not one linear layer on its features."""
    return ModelError(
        f"classifier.backbone: the logits of {name} are not its last linear layer on its features "
        "(a distilled model's are the mean of two heads); expected one linear head, which stage 2 "
        "fits. Fix: choose the model with a single head, e.g. DeiTForImageClassification instead "
        "of DeiTForImageClassificationWithTeacher"
    )


def other_size(name: str, size: int, error: Exception) -> ModelError:
    """The refusal of a model that fails at images of `size` pixels."""
    return ModelError(
        f"classifier.backbone: {name} does not take images of {size} x {size} pixels "
        f"({first_line(error)}). Fix: classifier.image_size=<the image_size in its "
        "config.json>"
    )


@dataclass(frozen=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias; weight [K, D], bias [K]."""

    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> NDArray[np.int64]:
        """[N] predicted labels of [N, D] features."""
        return (features @ self.weight.T + self.bias).argmax(dim=1).cpu().numpy()
