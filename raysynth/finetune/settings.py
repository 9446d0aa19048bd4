"""The knobs of `finetune`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from raysynth.knobs import Count, Named, Place, Rate, Section, Share, knob
from raysynth.registry import Registry, chosen_part

OBJECTIVES: Registry[Any] = Registry("raysynth.finetune.objectives", "fine-tuning objective")
"""Of `objective.Objective`, which speaks of jobs and so of the knobs below."""
OPTIMIZERS: Registry[Any] = Registry("raysynth.finetune.optimizers", "optimizer")
"""Of `optimizer.Optimizer`."""
TERMS: Registry[Any] = Registry("raysynth.finetune.terms", "term of the loss")
"""Of `term.Term`."""
Target = Literal["attention", "feed_forward", "time", "convolution"]


class AdapterOverride(Section):
    """What one adapter does differently; None: as `finetune` says."""

    steps: Count | None = knob(None, "Optimizer steps.")
    batch_size: Count | None = knob(None, "Images per step.")
    learning_rate: Rate | None = knob(None, "Peak learning rate.")
    rank: Count | None = knob(None, "LoRA rank.")
    alpha: Rate | None = knob(None, "LoRA alpha.")

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what came later and is not used: the digests of earlier versions stay."""
        told: dict[str, Any] = dump(self)
        return {k: v for k, v in told.items() if v is not None or k not in ("rank", "alpha")}


class FinetuneConfig(Section):
    """Fine-tuning of the base model on the group-clusters."""

    engine: Literal["auto", "lora", "full"] = knob(
        "auto", "LoRA adapters or full UNet weights; auto: as the generator is defined."
    )
    per: Literal["auto", "all", "class", "attribute"] = knob(
        "auto",
        "shared, edit: one model for all groups, or one for each class or attribute; "
        "auto: for all, or where a group has fewer than min_images for each attribute (class: "
        "with synthesis.lender=label).",
    )
    objective: chosen_part(OBJECTIVES) = knob(  # type: ignore[valid-type]
        "denoising", "What the models' loss is.", neutral="denoising"
    )
    noise_offset: Annotated[float, Field(ge=0)] = knob(
        0.0,
        "Standard deviation of a number that all noise of a channel has more (offset noise, "
        "Guttenberg 2023): the model learns mean brightness, which white noise leaves to be seen.",
        neutral=0.0,
    )
    terms: tuple[chosen_part(TERMS), ...] = knob(  # type: ignore[valid-type]
        (),
        "What is added to it: terms that compare what a model says under one group's prompt and "
        "under another's, each with its own weight; models of several groups only.",
        neutral=[],
    )
    min_images: Count = knob(
        8,
        "Images of smaller groups are not trained on: another group's model, or the "
        "shared one, speaks for them.",
    )
    targets: tuple[Target, ...] = knob(
        ("attention", "feed_forward", "time", "convolution"),
        "Kinds of layers that LoRA adapts, of those that the base has.",
    )
    text_encoder: bool = knob(
        False,
        "LoRA on the attention of the text encoder too (DataDream); prompts are then read at every "
        "step.",
        neutral=False,
    )
    rank: Count = knob(8, "LoRA rank.")
    alpha: Rate = knob(8.0, "LoRA alpha; the update is scaled by alpha / rank.")
    rslora: bool = knob(
        False,
        "Scale the update by alpha / sqrt(rank) instead (rsLoRA): a higher rank learns no slower.",
        neutral=False,
    )
    dora: bool = knob(
        False,
        "Learn the lengths of the weights' rows apart from their directions (DoRA).",
        neutral=False,
    )
    start: Place | None = knob(
        None,
        "Adapter that every fine-tuning begins with instead of none: a folder or .safetensors file "
        "of PEFT, diffusers or kohya. Layers that it adapts are trained with its own rank and "
        "alpha.",
        neutral=None,
    )
    start_sha256: Named | None = knob(
        None,
        "SHA-256 of `start`'s file; None: of what is there. A run takes it once, and records it.",
        neutral=None,
    )
    steps: Count | None = knob(
        None, "Optimizer steps of each adapter, at most. None: the generator's own."
    )
    max_passes: Rate | None = knob(
        None,
        "Most times an adapter sees each of its images: small clusters stop before "
        "`steps`. None: the generator's own.",
    )
    batch_size: Count | None = knob(
        None,
        "Images per step and adapter; smaller clusters take what they have. None: the "
        "generator's own.",
    )
    accumulation: Count = knob(1, "Micro-batches per optimizer step.")
    optimizer: chosen_part(OPTIMIZERS) = knob(  # type: ignore[valid-type]
        "adamw", "What steps; each adapter has a state of its own.", neutral="adamw"
    )
    learning_rate: Rate | None = knob(
        None, "Peak learning rate. None: the optimizer's own, where it has one, or the generator's."
    )
    weight_decay: Annotated[float, Field(ge=0)] = knob(0.01, "The optimizer's weight decay.")
    max_grad_norm: Rate = knob(1.0, "Gradient clipping norm, per adapter.")
    prompt_dropout: Share | None = knob(
        None,
        "Share of images trained without prompt (CFG). None: 0.1, and 0 for models per attribute.",
    )
    flip: bool = knob(True, "Mirror half of the images left-right.")
    ema: Annotated[float, Field(ge=0, lt=1)] | None = knob(
        None,
        "Decay of the weights' moving average that is kept; 0: the last weights. None: "
        "the generator's own.",
    )
    oversample: Share = knob(
        0.25, "shared, edit: share of a batch given to the bias-conflicting groups together."
    )
    prior_weight: Annotated[float, Field(ge=0)] | None = knob(
        None, "DreamBooth's prior-preservation weight; 0: off. None: the generator's own."
    )
    prior_images: Count = knob(64, "Prior images per class, made by the base model.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "accelerate's mixed precision; auto: bfloat16 where the device has it."
    )
    gradient_checkpointing: bool = knob(False, "Trade time for memory in the UNet.")
    patience: Annotated[int, Field(ge=0)] = knob(
        0,
        "Early stopping: evaluations on held-out images without a better loss before "
        "an adapter stops with its best weights; 0: off, all images are trained on.",
    )
    evaluate_steps: Count = knob(20, "Early stopping: steps between evaluations.")
    holdout: Share = knob(0.1, "Early stopping: share of an adapter's images.")
    experts: Count = knob(
        1,
        "Models that each adapter goes on as, each for a part of the noise levels; 1: one for all.",
        neutral=1,
    )
    experts_share: Annotated[float, Field(gt=0, lt=1)] = knob(
        0.5, "Share of the steps before the experts part; they share the others evenly."
    )
    experts_by: Literal["mass", "snr"] = knob(
        "mass",
        "Where noise levels are parted: as much of the training for each expert, or as many "
        "decibels of the signal-to-noise ratio.",
    )
    overrides: dict[str, AdapterOverride] = knob(
        {},
        "Adapter name (`<group>-<cluster>`, `shared`, `class-<label>` or "
        "`attribute-<attribute>`) -> its own steps, batch_size, learning_rate, rank or alpha.",
    )
    adapters_per_worker: Count | Literal["auto"] = knob(
        "auto",
        "Adapters dealt to one Ray Train worker. auto: all, over as many workers as "
        "there are; 1: a worker per group-cluster (paper).",
        width=True,
    )
    memory_share: Annotated[float, Field(gt=0, le=1)] = knob(
        0.8,
        "Share of the worker's memory (of its GPU, or of the node's free memory) that "
        "may be filled: as many of its adapters train at once as were measured to fit.",
        width=True,
    )
    checkpoint_steps: Count = knob(50, "Steps between checkpoints.", width=True)
    preview_steps: Annotated[int, Field(ge=0)] = knob(
        0,
        "Steps between previews, four images of every adapter each, in `<adapter>/previews` and in "
        "trackers; 0: none.",
        width=True,
    )
    max_failures: Annotated[int, Field(ge=0)] = knob(2, "Restarts of a failed worker.", width=True)

    @property
    def most_rank(self) -> int:
        """The highest rank that an adapter is given."""
        return max([self.rank, *(own.rank for own in self.overrides.values() if own.rank)])

    @model_validator(mode="after")
    def _check(self) -> FinetuneConfig:
        if self.engine != "full" and not self.targets:
            raise ValueError("finetune.targets is empty: LoRA needs at least one kind of layer")
        if self.start_sha256 and self.start is None:
            raise ValueError(
                "finetune.start_sha256 is the hash of no file. Fix: name it by finetune.start"
            )
        return self
