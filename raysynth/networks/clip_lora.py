"""CLIP with adapters on both towers, whose head is what its text tower says of the labels.

DataDream's classifier (Kim et al., arXiv 2407.10910; their code): CLIP as it is, LoRA on the
queries and values of both towers, logit = exp(scale) * cos(image, text), one template.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from raysynth.models.loading import limit_tokenizer, load_or_explain
from raysynth.models.mirror import located
from raysynth.networks.modeling_raysynth import ClipClassifier, ClipClassifierConfig
from raysynth.networks.pretrained import KEY, read_clip
from raysynth.networks.saved import label_settings
from raysynth.networks.settings import ClassifierConfig

RANK, ALPHA, DROPOUT = 16, 32, 0.1
ADAPTED = ["q_proj", "v_proj"]
TEMPLATE = "a photo of a {}"
"""Of the text of a label; ours, as theirs is of ImageNet's classes."""


class TextHead(nn.Linear):
    """A linear head whose weights are texts' features: `spoken` [K, D] while these are trained."""

    spoken: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, K] logits of [B, D] features."""
        return F.linear(x, self.weight if self.spoken is None else self.spoken, self.bias)


class ClipLora(nn.Module):
    """See above. In evaluation mode the head is a plain linear layer, and may be refitted.

    It takes the texts' features as its weights whenever training mode ends.
    """

    def __init__(self, clip: CLIPModel, tokens: Tensor, mask: Tensor) -> None:
        """`clip` is taken over; `tokens`, `mask`: [K, L] of the labels' texts. In evaluation mode.

        The adapters' random starts come from torch's global generator.
        """
        super().__init__()
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=ADAPTED)
        self.clip: Any = inject_adapter_in_model(lora, clip.requires_grad_(False))
        self.register_buffer("tokens", tokens)
        self.register_buffer("mask", mask)
        self.classifier = TextHead(clip.config.projection_dim, len(tokens))
        self.classifier.requires_grad_(False)
        nn.init.zeros_(self.classifier.bias)
        self.eval()

    def train(self, mode: bool = True) -> ClipLora:
        """Training mode, or evaluation mode with the head that was trained."""
        ends = self.training and not mode
        super().train(mode)
        if ends:
            self.classifier.spoken = None
            with torch.no_grad():
                self.classifier.weight.copy_(self.texts())
        return self

    def texts(self) -> Tensor:
        """[K, D] the head's weights: features of the labels' texts, of length exp(scale)."""
        said = self.clip.text_model(input_ids=self.tokens, attention_mask=self.mask)
        features = self.clip.text_projection(said.pooler_output).float()
        return self.clip.logit_scale.exp() * F.normalize(features, dim=-1)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutputWithNoAttention:
        """[B, 3, H, W] -> logits [B, K]."""
        resized = pixel_values.shape[-1] != self.clip.config.vision_config.image_size
        seen = self.clip.vision_model(pixel_values, interpolate_pos_encoding=resized)
        features = F.normalize(self.clip.visual_projection(seen.pooler_output).float(), dim=-1)
        if self.training:
            self.classifier.spoken = self.texts()
        return ImageClassifierOutputWithNoAttention(logits=self.classifier(features))

    def shipped(self, label_names: tuple[str, ...]) -> PreTrainedModel:
        """The same as a plain image tower under a linear head, its adapters merged."""
        merged = copy.deepcopy(self.clip)
        for name, module in list(merged.named_modules()):
            if hasattr(module, "get_base_layer"):
                module.merge()
                merged.set_submodule(name, module.get_base_layer())
        shape = merged.config.vision_config.to_dict()
        del shape["model_type"]
        settings = shape | label_settings(label_names) | {"normalised": True}
        model = ClipClassifier(ClipClassifierConfig(**settings))
        model.clip.vision_model = merged.vision_model
        model.clip.visual_projection = merged.visual_projection
        model.classifier.load_state_dict(self.classifier.state_dict())
        return model.eval()


def load_clip_lora(classifier: ClassifierConfig, words: Sequence[str]) -> ClipLora:
    """The CLIP of a resolved `classifier.backbone` with fresh adapters; `words`: of the labels.

    Raises
    ------
    ModelError
        When transformers cannot load it.
    """
    name = located(classifier.backbone, KEY)
    hub = {} if os.path.isdir(name) else {"revision": classifier.revision}
    read = CLIPTokenizer.from_pretrained
    tokenizer = load_or_explain(f"{KEY}: tokenizer", name, lambda: read(name, **hub))
    clip = read_clip(classifier, name)
    limit_tokenizer(tokenizer, clip.config.text_config)
    said = [TEMPLATE.format(word) for word in words]
    told = tokenizer(said, padding=True, truncation=True, return_tensors="pt")
    return ClipLora(clip, told["input_ids"], told["attention_mask"])
