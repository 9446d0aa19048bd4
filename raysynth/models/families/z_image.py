"""Z-Image: a single-stream transformer with flow matching that reads prompts by a language model.

Weights and code are Apache-2.0, those of its encoder (Qwen3) too. It takes prompts of different
lengths, without padding, which its own code asks the device for at every call.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.errors import ConfigError
from raysynth.models.family import Base, Published, Read
from raysynth.models.misfits import check_transformer
from raysynth.models.parts_family import (
    MASK,
    OF_A_TRANSFORMER,
    TOKENS,
    PartsFamily,
)
from raysynth.models.shape import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.models.condition import Condition

STATES, COUNT = "states", "count"
"""[S, L, D] the language model's states, zeros for padding; [S] tokens of each prompt."""
LENGTH = 512
"""Tokens of a prompt, at most, with the chat around it."""
TIMESTEPS = 1000


class ZImage(PartsFamily):
    """See `raysynth.models.family.Family`."""

    title = "Z-Image"
    source = "Tongyi-MAI 2025 (arXiv 2511.22699), Apache-2.0"
    classes: Mapping[str, str] = {
        "transformer": "diffusers.ZImageTransformer2DModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.Qwen3Model",
        "tokenizer": "transformers.AutoTokenizer",
    }
    roles = OF_A_TRANSFORMER
    targets: Mapping[str, tuple[str, ...]] = {
        "attention": tuple(f"attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
        "feed_forward": tuple(f"feed_forward.{name}" for name in ("w1", "w2", "w3")),
        "time": ("adaLN_modulation.0",),
    }
    published = Published(
        network={
            "in_channels": 16,
            "dim": 3840,
            "n_layers": 30,
            "n_refiner_layers": 2,
            "n_heads": 30,
            "n_kv_heads": 30,
            "cap_feat_dim": 2560,
        },
        shape=Shape(latents=(16, 128, 128), factor=8, tokens=LENGTH, grain=2),
        encoders=8.2e9,
        hub=("tongyi-mai/z-image",),
    )
    patch = 2
    pipeline_class = "ZImagePipeline"
    compiles = False

    def check(self, source: Path) -> None:
        """Refuse a transformer that does not fit its autoencoder or encoder; raises ModelError."""
        check_transformer(source, self.published.network, "cap_feat_dim", "hidden_size")

    def build(self, config: Mapping[str, Any]) -> Any:
        """The network of a configuration; it takes images of any side."""
        return super().build({k: v for k, v in config.items() if k != "sample_size"})

    def blocks(self) -> tuple[type, ...]:
        """Blocks of images, of prompts and of both."""
        from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

        return (ZImageTransformerBlock,)

    def tokens(self, base: Base, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and their mask, of prompts as what a user says in a chat."""
        tokenizer, limit = base.parts["tokenizer"], base.shape.tokens
        if base.cuts:
            prompts = [self._cut(tokenizer, prompt, limit) for prompt in prompts]
        read = tokenizer(
            _chats(tokenizer, prompts), padding=True, padding_side="right", return_tensors="pt"
        )
        lengths = read["attention_mask"].sum(1)
        if int(lengths.max()) > limit:
            longest = prompts[int(lengths.argmax())]
            raise ConfigError(
                f"prompts.template: {longest!r} is {int(lengths.max())} tokens long, with the chat "
                f"around it; expected at most {limit}. Fix: shorten the template or the words"
            )
        read = read.to(base.device)
        return {TOKENS: read["input_ids"], MASK: read["attention_mask"]}

    def lengths(self, tokenizer: Any, prompts: Sequence[str]) -> list[int]:
        """Tokens of prompts, with the chat around each."""
        return super().lengths(tokenizer, _chats(tokenizer, prompts))

    def _cut(self, tokenizer: Any, prompt: str, limit: int) -> str:
        """As many words of a prompt as fit, with the whole chat around them."""
        if self.lengths(tokenizer, [prompt])[0] <= limit:
            return prompt
        words = prompt.split()

        def length(count: int) -> int:
            return self.lengths(tokenizer, [" ".join(words[:count])])[0]

        return " ".join(words[: bisect_right(range(1, len(words) + 1), limit, key=length)])

    def states(
        self, encoders: Mapping[str, Any], tokens: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The language model's states before the last, zeros for padding, and their number."""
        mask = tokens[MASK]
        found = encoders["text_encoder"](
            tokens[TOKENS], attention_mask=mask.bool(), output_hidden_states=True
        ).hidden_states[-2]
        return {STATES: found * mask[..., None], COUNT: mask.sum(1)}

    def blank(self, model: Any, rows: int, tokens: int) -> Condition:
        """Rows of zeros in the shape that the transformer takes."""
        import torch

        from raysynth.models.condition import Condition

        shape = (rows, tokens, model.config.cap_feat_dim)
        count = torch.full((rows,), tokens, device=model.device)
        states = torch.zeros(shape, device=model.device, dtype=model.dtype)
        return Condition({STATES: states, COUNT: count})

    def asked(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] the velocity; the network says its opposite, of time that runs backwards."""
        import torch

        states, rows = condition[STATES], len(x)
        full = states.shape[1]
        counts = [full] * rows if states.is_meta else condition[COUNT].tolist()
        share = ((TIMESTEPS - timestep) / TIMESTEPS).expand(rows)
        told = [states[row, :count] for row, count in enumerate(counts)]
        said = model(list(x.unsqueeze(2).unbind(0)), share, told, return_dict=False)[0]
        return -torch.stack(said).squeeze(2)

    def sigmas(self, steps: int) -> list[float] | None:
        """From 1 to 1 / steps, evenly, as its pipeline asks."""
        import torch

        found: list[float] = torch.linspace(1.0, 1 / steps, steps).tolist()
        return found

    def pipeline_scale(self, scale: float) -> float:
        """Its pipeline adds the difference to the prompt's prediction, so that 0 is none."""
        return scale - 1

    def _tokens(self, read: Read) -> int:
        return LENGTH


def _chats(tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Prompts as what a user says in a chat."""
    asked = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
    each = ([{"role": "user", "content": prompt}] for prompt in prompts)
    return [tokenizer.apply_chat_template(said, **asked) for said in each]


PART = ZImage()
