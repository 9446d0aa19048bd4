"""A denoising network and the encoder of its prompts as one module, where both are adapted.

It is given tokens instead of text states, a row of them per image: so whatever routes, folds or
packs a network's adapters by batch row does the same to the encoder's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TextAndUNet(nn.Module):
    """Stable Diffusion's text encoder and UNet, named as in the model's folder."""

    def __init__(self, text_encoder: Any, unet: Any) -> None:
        """Both as they were loaded; nothing is copied."""
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the UNet is kept."""
        kept: torch.dtype = self.unet.dtype
        return kept

    def forward(self, x: Tensor, timestep: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """[B, C, H, W] what the UNet gives under the prompts of tokens [B, L]."""
        states = self.text_encoder(tokens, attention_mask=mask)[0].to(x.dtype)
        said: Tensor = self.unet(x, timestep, encoder_hidden_states=states, return_dict=False)[0]
        return said
