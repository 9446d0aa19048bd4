"""AuraFlow: a transformer with flow matching that reads prompts by a T5-like encoder (Pile-T5).

Its weights and code are Apache-2.0, and one encoder without pooled states is all that it is told.
States of the padding are zeros, as its pipeline makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.models.family import Base, Published, Read
from raysynth.models.misfits import check_transformer
from raysynth.models.parts_family import (
    MASK,
    OF_A_TRANSFORMER,
    TOKENS,
    PartsFamily,
    padded,
)
from raysynth.models.shape import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.models.condition import Condition

STATES = "states"
"""[S, L, D] the text encoder's states, zeros for padding."""
LENGTH = 256
"""Tokens of a prompt, as its pipeline pads it."""
TIMESTEPS = 1000


class AuraFlow(PartsFamily):
    """See `raysynth.models.family.Family`."""

    title = "AuraFlow"
    source = "fal.ai 2024 (blog.fal.ai/auraflow), Apache-2.0"
    classes: Mapping[str, str] = {
        "transformer": "diffusers.AuraFlowTransformer2DModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.UMT5EncoderModel",
        "tokenizer": "transformers.AutoTokenizer",
    }
    roles = OF_A_TRANSFORMER
    targets: Mapping[str, tuple[str, ...]] = {
        "attention": (
            *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
            *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        ),
        "feed_forward": tuple(
            f"{part}.{layer}"
            for part in ("ff", "ff_context")
            for layer in ("linear_1", "linear_2", "out_projection")
        ),
        "time": ("norm1.linear", "norm1_context.linear"),
    }
    published = Published(
        network={
            "sample_size": 64,
            "patch_size": 2,
            "in_channels": 4,
            "num_mmdit_layers": 4,
            "num_single_dit_layers": 32,
            "attention_head_dim": 256,
            "num_attention_heads": 12,
            "joint_attention_dim": 2048,
            "caption_projection_dim": 3072,
            "out_channels": 4,
            "pos_embed_max_size": 9216,
        },
        shape=Shape(latents=(4, 64, 64), factor=8, tokens=LENGTH, grain=2),
        encoders=2.5e9,
        hub=("fal/auraflow", "purplesmartai/pony-v7"),
    )
    patch = 2
    vae_overflows = True
    pipeline_class = "AuraFlowPipeline"

    def check(self, source: Path) -> None:
        """Refuse a transformer that does not fit its autoencoder or encoder; raises ModelError."""
        check_transformer(source, self.published.network, "joint_attention_dim", "d_model")

    def blocks(self) -> tuple[type, ...]:
        """Blocks of image and text apart, and together."""
        from diffusers.models.transformers.auraflow_transformer_2d import (
            AuraFlowJointTransformerBlock,
            AuraFlowSingleTransformerBlock,
        )

        return (AuraFlowJointTransformerBlock, AuraFlowSingleTransformerBlock)

    def tokens(self, base: Base, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and their mask."""
        read = padded(base, base.parts["tokenizer"], base.shape.tokens, prompts)
        return {TOKENS: read["input_ids"], MASK: read["attention_mask"]}

    def states(
        self, encoders: Mapping[str, Any], tokens: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The encoder's last states, zeros for padding."""
        mask = tokens[MASK]
        found = encoders["text_encoder"](tokens[TOKENS], attention_mask=mask)[0]
        return {STATES: found * mask[..., None]}

    def blank(self, model: Any, rows: int, tokens: int) -> Condition:
        """Rows of zeros in the shape that the transformer takes."""
        import torch

        from raysynth.models.condition import Condition

        shape = (rows, tokens, model.config.joint_attention_dim)
        return Condition({STATES: torch.zeros(shape, device=model.device, dtype=model.dtype)})

    def asked(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] the flow's velocity; timesteps are shares of the schedule to it."""
        predicted: Tensor = model(
            x,
            encoder_hidden_states=condition[STATES],
            timestep=(timestep / TIMESTEPS).expand(len(x)).to(x.dtype),
            return_dict=False,
        )[0]
        return predicted

    def _tokens(self, read: Read) -> int:
        return LENGTH


PART = AuraFlow()
