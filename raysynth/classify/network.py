"""A backbone in use: normalisation, mixed precision, features before the head, files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BaseImageProcessor

from raysynth.classify.backbone import SMALL, build_model, linear_head
from raysynth.classify.data import ImageSet
from raysynth.classify.head import Head
from raysynth.config import Config
from raysynth.groups import Groups
from raysynth.models.device import pick_device, pick_dtype

EVALUATION_BATCH = 250


class Network:
    """A classifier with its head apart: `features` (encoder), `head` (linear), both trainable."""

    def __init__(
        self,
        model: Any,
        processor: BaseImageProcessor,
        classes: int,
        device: torch.device,
        precision: str,
    ) -> None:
        """Take over a transformers model; `precision`: auto, float32 or bfloat16."""
        self.device = device
        # Measured on CPU: channels last saves a fifth of a small network's step.
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.processor = processor
        self.head: nn.Linear = linear_head(model, classes)
        self.head.register_forward_pre_hook(self._catch)
        native = pick_dtype("auto", self.device) == torch.bfloat16
        self.bf16 = precision == "bfloat16" or (precision == "auto" and native)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(processor.image_mean, device=self.device).view(shape) * 255
        self._std = torch.tensor(processor.image_std, device=self.device).view(shape) * 255
        self._features: Tensor | None = None

    def _catch(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, 3, H, W] on the device -> float32 features [B, D] and logits [B, K]."""
        x = (pixels - self._mean) / self._std
        with self._autocast():
            logits = self.model(pixel_values=x.contiguous(memory_format=torch.channels_last)).logits
        assert self._features is not None
        return self._features.float(), logits.float()

    def _autocast(self) -> Any:
        if self.bf16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @torch.no_grad()
    def outputs(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """float32 features [N, D] and logits [N, K] of a whole set, in evaluation mode."""
        self.model.eval()
        parts = []
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images.pixels[start : start + EVALUATION_BATCH].copy()
            parts.append(self(torch.from_numpy(batch).to(self.device)))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def predict(self, images: ImageSet) -> NDArray[np.int64]:
        """[N] predicted labels."""
        return self.outputs(images)[1].argmax(dim=1).cpu().numpy()

    @torch.no_grad()
    def set_head(self, head: Head) -> None:
        """Replace the head's weights."""
        self.head.weight.copy_(head.weight)
        self.head.bias.copy_(head.bias)

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
        self.model.to(memory_format=torch.contiguous_format)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def build_network(config: Config, groups: Groups, size: int, seed: int) -> Network:
    """A fresh network for these labels; its random weights are a function of `seed`."""
    torch.manual_seed(seed)
    model = build_model(config.classifier, groups.label_names, size)
    return Network(
        model,
        build_processor(config, size),
        len(groups.label_names),
        pick_device(config.base.device),
        config.classifier.precision,
    )


def build_processor(config: Config, size: int) -> BaseImageProcessor:
    """Preprocessing: the named backbone's own normalisation, else to [-1, 1]; resized to `size`."""
    import transformers

    mean, std = [0.5] * 3, [0.5] * 3
    if config.classifier.backbone != SMALL:
        try:
            known = transformers.AutoImageProcessor.from_pretrained(config.classifier.backbone)
            mean, std = list(known.image_mean), list(known.image_std)
        except OSError:  # a folder without a preprocessor_config.json
            pass
    # The Pillow variant needs no torchvision; older transformers have it under the plain name.
    name = "ViTImageProcessorPil"
    kind = getattr(transformers, name if hasattr(transformers, name) else "ViTImageProcessor")
    return kind(size={"height": size, "width": size}, image_mean=mean, image_std=std)
