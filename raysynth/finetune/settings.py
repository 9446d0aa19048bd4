"""The knobs of `finetune`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from raysynth.knobs import Count, Rate, Section, Share

Target = Literal["attention", "feed_forward", "time", "convolution"]


class AdapterOverride(Section):
    """What one adapter does differently; None: as `finetune` says."""

    steps: Count | None = Field(None, description="Optimizer steps.")
    batch_size: Count | None = Field(None, description="Images per step.")
    learning_rate: Rate | None = Field(None, description="AdamW's peak learning rate.")


class FinetuneConfig(Section):
    """Fine-tuning of the base model on the group-clusters."""

    engine: Literal["auto", "lora", "full"] = Field(
        "auto", description="LoRA adapters or full UNet weights; auto: as the generator is defined."
    )
    per: Literal["auto", "all", "class", "attribute"] = Field(
        "auto",
        description="shared, edit: one model for all groups, or one for each class or attribute; "
        "auto: for all, or where a group has fewer than min_images for each attribute (class: "
        "with synthesis.lender=label).",
    )
    min_images: Count = Field(
        8,
        description="Images of smaller groups are not trained on: another group's model, or the "
        "shared one, speaks for them.",
    )
    targets: tuple[Target, ...] = Field(
        ("attention", "feed_forward", "time", "convolution"), description="Layers that LoRA adapts."
    )
    rank: Count = Field(8, description="LoRA rank.")
    alpha: Rate = Field(8.0, description="LoRA alpha; the update is scaled by alpha / rank.")
    steps: Count | None = Field(
        None, description="Optimizer steps of each adapter, at most. None: the generator's own."
    )
    max_passes: Rate | None = Field(
        None,
        description="Most times an adapter sees each of its images: small clusters stop before "
        "`steps`. None: the generator's own.",
    )
    batch_size: Count | None = Field(
        None,
        description="Images per step and adapter; smaller clusters take what they have. None: the "
        "generator's own.",
    )
    accumulation: Count = Field(1, description="Micro-batches per optimizer step.")
    learning_rate: Rate | None = Field(
        None, description="AdamW's peak learning rate. None: the generator's own."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="AdamW's weight decay.")
    max_grad_norm: Rate = Field(1.0, description="Gradient clipping norm, per adapter.")
    prompt_dropout: Share | None = Field(
        None,
        description="Share of images trained without prompt (CFG). None: 0.1, and 0 for models per "
        "attribute.",
    )
    flip: bool = Field(True, description="Mirror half of the images left-right.")
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Decay of the weights' moving average that is kept; 0: the last weights. None: "
        "the generator's own.",
    )
    oversample: Share = Field(
        0.25,
        description="shared, edit: share of a batch given to the bias-conflicting groups together.",
    )
    prior_weight: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="DreamBooth's prior-preservation weight; 0: off. None: the generator's own.",
    )
    prior_images: Count = Field(64, description="Prior images per class, made by the base model.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="accelerate's mixed precision; auto: bfloat16 where the device has it."
    )
    gradient_checkpointing: bool = Field(False, description="Trade time for memory in the UNet.")
    patience: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Early stopping: evaluations on held-out images without a better loss before "
        "an adapter stops with its best weights; 0: off, all images are trained on.",
    )
    evaluate_steps: Count = Field(20, description="Early stopping: steps between evaluations.")
    holdout: Share = Field(0.1, description="Early stopping: share of an adapter's images.")
    overrides: dict[str, AdapterOverride] = Field(
        default_factory=dict,
        description="Adapter name (`<group>-<cluster>`, `shared`, `class-<label>` or "
        "`attribute-<attribute>`) -> its own steps, batch_size or learning_rate.",
    )
    adapters_per_worker: Count | Literal["auto"] = Field(
        "auto",
        description="Adapters dealt to one Ray Train worker. auto: all, over as many workers as "
        "there are; 1: a worker per group-cluster (paper).",
    )
    memory_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8,
        description="Share of the worker's memory (of its GPU, or of the node's free memory) that "
        "may be filled: as many of its adapters train at once as were measured to fit.",
    )
    checkpoint_steps: Count = Field(50, description="Steps between checkpoints.")
    max_failures: Annotated[int, Field(ge=0)] = Field(2, description="Restarts of a failed worker.")

    @model_validator(mode="after")
    def _check(self) -> FinetuneConfig:
        if self.engine != "full" and not self.targets:
            raise ValueError("finetune.targets is empty: LoRA needs at least one kind of layer")
        return self
