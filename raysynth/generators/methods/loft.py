"""A LoRA adapter for every real image; each synthetic image is drawn by some of a group's, fused.

After Kim et al. 2025 (LoFT, arXiv 2505.11703): an adapter that learnt one image by heart draws it
again, and the weighted sum of several draws what is between them. Meant for few images of each
group (`dataset.shots`).
"""

from __future__ import annotations

from typing import Any

from raysynth.generators.generator import Generator, Models
from raysynth.groups.settings import PromptConfig


def refuse(name: str, prompts: PromptConfig, finetune: Any) -> None:
    """Refuse models whose weights are no sum: full ones, DoRA's, experts for parts of the noise."""
    for key, value, usual in (
        ("engine", finetune.engine, "auto"),
        ("dora", finetune.dora, False),
        ("experts", finetune.experts, 1),
    ):
        if value != usual and value != "lora":
            raise ValueError(
                f"finetune.{key}={value}: generator={name} adds adapters of single images up; "
                f"expected {usual}. Fix: finetune.{key}={str(usual).lower()}, or another generator"
            )


PART = Generator(
    "LoRA per image, fused",
    "Kim et al. 2025 (LoFT, arXiv 2505.11703)",
    Models("lora", "image"),
    check=refuse,
)
