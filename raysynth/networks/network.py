"""A backbone in use: normalisation, mixed precision, features before the head, files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raysynth.groups.groups import Groups
from raysynth.models.device import pick_device, pick_dtype
from raysynth.networks.build import Blueprint, model_of
from raysynth.networks.folded import Folded
from raysynth.networks.images import ImageSet
from raysynth.networks.linear import Head, check_head, linear_head, other_size
from raysynth.networks.settings import SMALL
from raysynth.networks.small import NORMALISATION, SmallNetwork

EVALUATION_BATCH = 250
CPU_EVALUATION_BATCH = 64
"""Measured: a small network's activations stay in a core's cache, a quarter less time than 250."""


class Network:
    """A classifier with its head apart: `features` (encoder), `head` (linear), both trainable."""

    def __init__(
        self, model: Any, blueprint: Blueprint, label_names: tuple[str, ...], size: int
    ) -> None:
        """Take over a model of `build_model`; `size`: side of its images, pixels.

        Raises ModelError where the model does not take such images, or has not one linear head.
        """
        self.classifier, self.label_names, self.size = blueprint.resolved(), label_names, size
        self.device = pick_device(blueprint.base.device)
        # Measured on CPU: channels last saves a fifth of a small network's step.
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.head: nn.Linear = linear_head(model, len(label_names))
        self.head.register_forward_pre_hook(self._catch)
        native = pick_dtype("auto", self.device) == torch.bfloat16
        precision = self.classifier.precision
        self.bf16 = precision == "bfloat16" or (precision == "auto" and native)
        self.mean, self.std = self._normalisation()
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(self.mean, device=self.device).view(shape) * 255
        self._std = torch.tensor(self.std, device=self.device).view(shape) * 255
        self._features: Tensor | None = None
        if self.classifier.backbone != SMALL:
            self._check()

    def _normalisation(self) -> tuple[list[float], list[float]]:
        """The named backbone's own; the small one's is to [-1, 1]."""
        if self.classifier.backbone == SMALL:
            return [NORMALISATION] * 3, [NORMALISATION] * 3
        from raysynth.networks.pretrained import normalisation

        return normalisation(self.classifier)

    @torch.no_grad()
    def _check(self) -> None:
        """Raise ModelError where the model does not take its images, or has not one linear head."""
        training, name = self.model.training, type(self.model).__name__
        generator = torch.Generator().manual_seed(0)  # torch's global one decides the weights
        pixels = torch.rand((2, 3, self.size, self.size), generator=generator).to(self.device)
        try:
            logits = self.model.eval()(pixel_values=pixels).logits
        except (RuntimeError, ValueError) as error:
            raise other_size(name, self.size, error) from None
        check_head(name, self.head, self._features, logits)
        self.model.train(training)

    def _catch(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, 3, H, W] on the device -> float32 features [B, D] and logits [B, K]."""
        with self._autocast():
            output = self.model(pixel_values=self._normalised(pixels))
        assert self._features is not None
        logits = output if isinstance(output, Tensor) else output.logits
        return self._features.float(), logits.float()

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bf16 else torch.float32

    def _normalised(self, pixels: Tensor) -> Tensor:
        """What the model sees, rounded as autocast would in the pass that puts channels last."""
        x = pixels.float().sub_(self._mean).div_(self._std)
        return x.to(self._dtype, memory_format=torch.channels_last)

    def _evaluated(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """This network as it is now, as a function like itself; faster where it can be."""
        if not isinstance(self.model, SmallNetwork):
            return self
        encoder = Folded(self.model, self._dtype)

        def outputs(pixels: Tensor) -> tuple[Tensor, Tensor]:
            with self._autocast():
                features = encoder(self._normalised(pixels))
                return features.float(), self.head(features).float()

        return outputs

    def _autocast(self) -> Any:
        if self.bf16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @torch.no_grad()
    def outputs(
        self, images: ImageSet, rows: NDArray[np.int64] | None = None
    ) -> tuple[Tensor, Tensor]:
        """float32 features [N, D] and logits [N, K] in evaluation mode; `rows` [N]; None: all."""
        self.model.eval()
        rows = np.arange(len(images)) if rows is None else rows
        parts = []
        size = CPU_EVALUATION_BATCH if self.device.type == "cpu" else EVALUATION_BATCH
        evaluated = self._evaluated()
        for start in range(0, len(rows), size):
            batch = images.pixels[rows[start : start + size]]  # a copy: the set is read-only
            parts.append(evaluated(torch.from_numpy(batch).to(self.device)))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    @property
    def own(self) -> bool:
        """Whether transformers knows the model only by code of ours, saved beside it."""
        return type(self.model).__module__.startswith("raysynth.")

    def predict(self, images: ImageSet) -> NDArray[np.int64]:
        """[N] predicted labels."""
        return self.outputs(images)[1].argmax(dim=1).cpu().numpy()

    @torch.no_grad()
    def set_head(self, head: Head) -> None:
        """Replace the head's weights."""
        self.head.weight.copy_(head.weight)
        self.head.bias.copy_(head.bias)

    def current_head(self) -> Head:
        """A copy of the head's weights."""
        return Head(self.head.weight.detach().clone(), self.head.bias.detach().clone())

    def state(self) -> dict[str, Tensor]:
        """A copy of all weights on the CPU, contiguous as safetensors wants them."""
        state = self.model.state_dict()
        return {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in state.items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.model.load_state_dict(dict(state))

    def save_pretrained(self, folder: str) -> None:
        """Config, safetensors weights and image preprocessor in one local folder."""
        from raysynth.models.processor import image_processor
        from raysynth.networks.saved import save

        self.model.to(memory_format=torch.contiguous_format)
        save(self.model, self.classifier, self.label_names, self.size, folder)
        image_processor(self.mean, self.std, self.size).save_pretrained(folder)


def build_network(blueprint: Blueprint, groups: Groups, size: int, seed: int) -> Network:
    """A fresh network for these labels; its random weights are a function of `seed`."""
    torch.manual_seed(seed)
    model = model_of(blueprint, groups, size)
    return Network(model, blueprint, groups.label_names, size)
