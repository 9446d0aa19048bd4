"""Every knob of raysynth, once: typed, validated, documented, with its unit."""

from __future__ import annotations

import hashlib
import json
import string
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from raysynth.config_values import named, place, plain, torch_device

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0)]
Span = tuple[float, float]
Named = Annotated[str, AfterValidator(named)]
Place = Annotated[str, AfterValidator(place)]
"""A folder, a URI or a model's name."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""What folders may be called; file systems take some 255 characters."""
Target = Literal["attention", "feed_forward", "time", "convolution"]
Generator = Literal["vanilla", "lora", "dreambooth", "clustered_dreambooth", "shared", "edit"]
Reference = Literal[
    "erm",
    "reweighting",
    "resampling",
    "subsampling",
    "group_dro",
    "jtt",
    "erm_balanced_head",
    "dfr_train",
    "dfr_validation",
    "self",
]
Control = Literal["clip_balanced_head", "base_classifier"]
Mixture = Literal["ffr", "usb", "asb"]
Start = Literal["scratch", "pretrained"]


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused, values are frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plainly(cls, value: Any, info: ValidationInfo) -> Any:
        """No boolean as a number, no secret in a URI; whole numbers as names of a mapping."""
        return plain(value, cls.model_fields[str(info.field_name)].annotation)


class DatasetConfig(Section):
    """Real images in: which, from where, how biased, how their groups are spoken."""

    name: Literal["outfits", "folder", "waterbirds", "celeba", "utkface"] = Field(
        "outfits",
        description="outfits: embedded; folder: images + metadata.csv or .parquet; the others in "
        "their published layouts.",
    )
    path: Place | None = Field(
        None,
        description="Folder or URI of the images; outfits: Fashion-MNIST's IDX files, if others "
        "than the embedded ones are wanted.",
    )
    label: Named | None = Field(
        None,
        description="celeba: attribute that is predicted (None: Blond_Hair); utkface: gender, age "
        "or race (None: gender).",
    )
    attribute: Named | None = Field(
        None,
        description="celeba: spurious attribute (None: Male); utkface: gender, age or race (None: "
        "age, FFR's rule).",
    )
    pair: tuple[str, str] = Field(
        ("pullover", "coat"), description="outfits: the two garments told apart (label 0, label 1)."
    )
    severity: Annotated[float, Field(ge=0.5, lt=1.0)] | Literal["original"] = Field(
        default_factory=lambda values: 0.99 if values.get("name") == "outfits" else "original",
        description="Share of bias-aligned training images within a class; `original`: as it is. "
        "Default: 0.99 for outfits, original for other data sets.",
    )
    thin_validation: bool = Field(
        False, description="Thin the validation images to the severity too, as FFR does."
    )
    train_images: Count = Field(4000, description="outfits: training images, both labels together.")
    validation_images: Count = Field(400, description="outfits: validation images, group-balanced.")
    test_images: Count = Field(2000, description="outfits: test images, group-balanced.")
    validation_share: Share = Field(0.1, description="folder without split: share of each group.")
    test_share: Share = Field(0.2, description="folder without split: share of each group.")
    on_error: Literal["refuse", "skip"] = Field(
        "refuse", description="Unreadable images: refuse the run, or skip and count them."
    )
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = Field(
        None, description="Side of the stored square images, pixels; None: as they come (folder)."
    )
    max_megapixels: Annotated[float, Field(gt=0.0, le=178.0)] = Field(
        64.0,
        description="Images of more million pixels are unreadable (by their header: a few bytes "
        "can declare any size, and decoding takes 4 bytes per pixel and more).",
    )
    label_words: dict[str, str] | None = Field(
        None, description="Label name -> words in prompts; None: from the data set."
    )
    attribute_words: dict[str, str] | None = Field(
        None, description="Attribute name -> words in prompts; None: from the data set."
    )

    aligned: dict[str, str] | None = Field(
        None,
        description="Label name -> attribute name that it goes with (bias-aligned; kept whole by "
        "severity). Labels not named: the data set's own (celeba Blond_Hair or Smiling x Male, "
        "utkface gender x age: FFR's; waterbirds), else the largest group.",
    )

    @model_validator(mode="after")
    def _check(self) -> DatasetConfig:
        if self.name != "outfits" and not self.path:
            raise ValueError(
                f"dataset.path is missing: `{self.name}` needs the folder of the images"
            )
        for key in ("label", "attribute"):
            if getattr(self, key) is not None and self.name not in ("celeba", "utkface"):
                raise ValueError(f"dataset.{key}: only celeba and utkface choose it")
        if self.aligned and self.name == "outfits":
            raise ValueError(
                "dataset.aligned: outfits is composed with its first garment on its first ground "
                "and its second on its second. Fix: remove it, or swap the names in dataset.pair"
            )
        if self.label is not None and self.label == self.attribute:
            raise ValueError(f"dataset.attribute: another one than the label {self.label} expected")
        if self.name == "outfits" and self.severity == "original":
            raise ValueError("dataset.severity: outfits is composed, give a number such as 0.99")
        if self.name == "outfits" and self.pair[0] == self.pair[1]:
            raise ValueError(f"dataset.pair: two different garments expected, got {self.pair}")
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                "dataset.validation_share + dataset.test_share: nothing is left to train"
            )
        return self


class BaseConfigSection(Section):
    """The text-to-image base model and the CLIP that embeds and scores."""

    name: Place = Field(
        "embedded",
        description="`embedded`, folder or hub id owner/model (Stable Diffusion 1.x).",
    )
    clip: Place = Field(
        "embedded", description="`embedded`, folder or hub id owner/model (transformers CLIP)."
    )
    revision: Named | None = Field(
        None,
        description="Hub revision of `name`: commit, tag or branch; None: the newest. A run takes "
        "one commit for all of its workers, and records it.",
    )
    clip_revision: Named | None = Field(None, description="Hub revision of `clip`, as `revision`.")
    device: Annotated[str, AfterValidator(torch_device)] = Field(
        "auto",
        description="auto: cuda, mps or cpu by probing; or a torch device such as cuda:1 or xpu.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Compute precision of the frozen parts; auto: by the device."
    )
    attention: Literal["auto", "sdpa", "plain"] = Field(
        "auto",
        description="Attention kernel; auto: plain on CPU (faster there), SDPA elsewhere.",
    )


SPOKEN = ("token", "label", "attribute")
"""What a prompt's template may speak of."""


class PromptConfig(Section):
    """How a group is spoken."""

    template: str = Field(
        "a photo of a {token} {label} on {attribute}",
        description="Prompt of an image; {label} is required, {token} and {attribute} as needed.",
    )
    token: str = Field("sks", description="DreamBooth's rare token, bound to the real images.")
    negative: str = Field("", description="Negative prompt of every image.")

    @model_validator(mode="after")
    def _check(self) -> PromptConfig:
        if "label" not in self.fields:
            raise ValueError("prompts.template: {label} is missing, a prompt must name the label")
        return self

    @property
    def fields(self) -> frozenset[str]:
        """What the template speaks of; ValueError for more than a plain {label}."""
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise ValueError(f"prompts.template: {error}; write {{{{ for a brace") from None
        for _, field, form, conversion in parts:
            if field is not None and (field not in SPOKEN or form or conversion):
                raise ValueError(
                    f"prompts.template: unknown field {field!r}, or more than its name between the "
                    "braces; use {token}, {label}, {attribute}"
                )
        return frozenset(field for _, field, _, _ in parts if field is not None)


class ClusteringConfig(Section):
    """k-means per group in an embedding space, CLIP's or another encoder's."""

    k: Count | Literal["silhouette"] | dict[str | int, Count] = Field(
        "silhouette",
        description="Clusters per group; silhouette: the k <= max_k of the best one; or a mapping "
        "of groups, by name or index, to numbers (groups not named: silhouette).",
    )
    encoder: Place = Field(
        "clip",
        description="Whose space clusters and copies are found in: `clip` (base.clip), or a folder "
        "or hub id of a transformers vision model.",
    )
    encoder_revision: Named | None = Field(
        None, description="Hub revision of `encoder`, as base.revision."
    )
    max_k: Count = Field(3, description="Most clusters per group when k is chosen.")
    min_size: Count = Field(20, description="Images; smaller clusters merge into the nearest one.")
    batch_size: Count = Field(256, description="Images embedded at once.")
    actors: Count = Field(2, description="Embedding actors in parallel.")


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


class SynthesisConfig(Section):
    """Generation of the candidate images."""

    images_per_group: Count = Field(800, description="Candidates generated per group.")
    steps: Count = Field(6, description="Solver steps per image.")
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="CFG weight; <= 1: off, negative prompts too. None: the generator's own.",
    )
    lender: Literal["label", "attribute"] = Field(
        "attribute",
        description="Whose model generates a group that has too few images for its own "
        "(finetune.min_images): its attribute's largest group's, or its class's (paper).",
    )
    mask: Literal["diffedit", "none"] = Field(
        "diffedit",
        description="edit: what of a real image is regenerated with `strength`: the part that the "
        "attribute's words are about, or all of it.",
    )
    mask_margin: Annotated[int, Field(ge=0)] = Field(
        1, description="edit with a mask: latent positions that it is widened by."
    )
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="edit: noise put on a real image before it is regenerated, as a share of the "
        "schedule (the nearest of steps / (steps + 1), steps / (steps + 2), ...); 1: nothing is "
        "left of it. None: 1 with a mask, 0.85 without.",
    )
    strength_outside: tuple[Share, Share] = Field(
        (0.5, 0.5),
        description="edit with a mask: the same outside it, a range of which every image takes its "
        "own; 0: nothing changes there.",
    )
    solver: Literal["dpmsolver++", "unipc", "ddim", "base"] = Field(
        "dpmsolver++", description="Diffusion solver; base: the one the base model ships."
    )
    batch_size: Count = Field(64, description="Images denoised at once.")
    compile: bool = Field(
        False,
        description="torch.compile the UNet for full batches of one adapter: 1.5 times as fast on "
        "CPUs, after a minute of compiling in every actor; pays from some ten thousand images on.",
    )
    decode_batch_size: Count | None = Field(
        None,
        description="Images decoded at once; the decoder needs the most memory per image. None: a "
        "megapixel's worth, at most 32 images.",
    )
    image_size: Annotated[int, Field(ge=8)] | None = Field(
        None, description="Side of generated images, pixels; None: the base model's own."
    )
    rows_per_shard: Count = Field(1000, description="Most images per Parquet shard (of one group).")
    actors: Count = Field(2, description="Generating actors in parallel.")


class SelectionConfig(Section):
    """CLIP score and who is kept (Basu et al., arXiv 2511.08711); copies are rejected first."""

    rule: Literal["quantile", "threshold", "random", "off"] = Field(
        "quantile",
        description="quantile: best share of each group (paper); threshold: scores from "
        "`threshold` on; random: a random share (ablation); off: all.",
    )
    alpha: Share = Field(0.5, description="Score = alpha * prompt + (1-alpha) * centroid.")
    keep: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75, description="quantile, random: share kept of each group."
    )
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        None, description="threshold: lowest score kept, a cosine."
    )
    per_cluster: bool = Field(
        False, description="A group's kept images are shared equally by its clusters."
    )
    copy_threshold: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None = Field(
        "auto",
        description="Similarity to a training image of its class (cosine of whitened embeddings) "
        "above which an image is a copy; auto: per group, by validation images; null: none is.",
    )

    @model_validator(mode="after")
    def _check(self) -> SelectionConfig:
        if (self.rule == "threshold") != (self.threshold is not None):
            raise ValueError(
                f"selection.threshold: got {self.threshold} with rule {self.rule}; rule=threshold "
                "needs a number such as 0.8, the other rules none"
            )
        return self


class ClassifierConfig(Section):
    """The backbone and raysynth's own two-stage training."""

    backbone: Place = Field(
        "small",
        description="`small` residual network, `clip` (the image embedding of base.clip), or a "
        "transformers model.",
    )
    revision: Named | None = Field(
        None, description="Hub revision of `backbone`, as base.revision; clip: base.clip_revision."
    )
    start: Start | None = Field(
        None,
        description="Weights that trainings start from. small, pretrained: embedded, trained on "
        "the base's garments other than pullover and coat. None: scratch for small, pretrained "
        "for transformers.",
    )
    image_size: Annotated[int, Field(ge=8)] | None = Field(
        None, description="Side of the network's input, pixels; None: the real images' own."
    )
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (32, 64, 128), description="small: channels of its stages."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Classifier's arithmetic; auto: bfloat16 where the device has it."
    )
    flip: bool = Field(True, description="Augmentation: mirror images with probability 1/2.")
    crop_padding: Annotated[int, Field(ge=0)] = Field(
        2, description="Augmentation: border of the random crops, pixels; 0: no crops."
    )
    evaluations: Count = Field(
        4, description="Evaluations on validation per training: early stopping's, ASHA's rungs."
    )
    batch_size: Count = Field(128, description="Images per step.")
    ratio: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Synthetic / real images used; above 0: one of each group at least."
    )
    beta: Share = Field(0.5, description="Stage 1 loss = beta * CE + (1-beta) * SupCon.")
    temperature: Rate = Field(0.1, description="SupCon's temperature.")
    learning_rate: Rate = Field(
        3e-3,
        description="Stage 1 peak learning rate; a pretrained `clip` or transformers model: 1e-4 "
        "unless given.",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="Stage 1 weight decay.")
    steps: Annotated[int, Field(ge=0)] = Field(
        200, description="Stage 1 optimizer steps; 0: a pretrained backbone stays as it is."
    )
    schedule: Literal["head", "full", "joint"] = Field(
        "head",
        description="head: stage 2 fits the head on real images (paper); full: stage 2 trains all "
        "weights on them; joint: one stage on real and synthetic images (DataDream).",
    )
    head_objective: Literal["erm", "balanced", "group_dro", "dfr"] = Field(
        "balanced",
        description="Stage 2 objective on real images: plain (paper), group-balanced, Group-DRO, "
        "or (head only) the mean of heads on group-balanced subsets. joint: how real images are "
        "drawn.",
    )
    head_weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.3, description="head: weight decay of the linear head."
    )
    head_real_share: Share = Field(
        1.0,
        description="head: lambda of lambda * CE(real) + (1-lambda) * CE(synthetic), for the head "
        "alone; 1: real images only (paper).",
    )
    full_steps: Count = Field(60, description="full: optimizer steps of stage 2.")
    full_learning_rate: Rate = Field(
        1e-3,
        description="full: stage 2 peak learning rate; a pretrained `clip` or transformers model: "
        "1e-4 unless given.",
    )
    dro_step_size: Rate = Field(
        0.01, description="full with group_dro: step size of the group weights."
    )
    real_share: Share = Field(
        0.8, description="joint: lambda of lambda * CE(real) + (1-lambda) * CE(synthetic)."
    )
    seeds: Count = Field(3, description="Seeds of each final classifier.")
    mixtures: tuple[Mixture, ...] = Field(
        (), description="Also trained on the run's synthetic images, tuned like the references."
    )
    mixture_learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] | None = Field(
        None,
        description="Peak learning rates tried for the mixtures, on validation. None: "
        "references.learning_rates; where these were not given and follow another start, those of "
        "`start`.",
    )

    @property
    def starts_pretrained(self) -> bool:
        """Trainings start from weights that know something."""
        if self.start is None:
            return self.backbone != "small"
        return self.start == "pretrained"

    @model_validator(mode="after")
    def _check(self) -> ClassifierConfig:
        if self.steps == 0 and not self.starts_pretrained:
            raise ValueError("classifier.steps: 0 needs a pretrained backbone, see `start`")
        if self.steps == 0 and self.schedule == "joint":
            raise ValueError("classifier.steps: 0 leaves nothing to train, as schedule is joint")
        known = {"full": ("erm", "balanced", "group_dro"), "joint": ("erm", "balanced")}
        allowed = known.get(self.schedule, (self.head_objective,))
        if self.head_objective not in allowed:
            raise ValueError(
                f"classifier.head_objective: schedule {self.schedule} has {', '.join(allowed)}, "
                f"got {self.head_objective}"
            )
        self.check_share("classifier.head_real_share", self.head_real_share)
        return self

    def check_share(self, key: str, share: float) -> None:
        """Refuse a head on synthetic images too where the schedule has none; ValueError."""
        if share < 1 and (self.schedule != "head" or self.head_objective not in MIXED):
            raise ValueError(
                f"{key}: below 1 needs classifier.schedule head and classifier.head_objective "
                f"{' or '.join(MIXED)}, got {self.schedule} and {self.head_objective}"
            )


MIXED = ("erm", "balanced")
"""Head objectives that may be fitted to synthetic images too."""


class ReferencesConfig(Section):
    """Real-only references and control rows; tuned on validation, all over the same settings."""

    names: tuple[Reference, ...] = Field(
        ("erm", "resampling", "subsampling", "group_dro", "erm_balanced_head"),
        description="References trained on the real images.",
    )
    controls: tuple[Control, ...] = Field(
        (),
        description="What the base model knows by itself: a balanced head on its CLIP; embedded "
        "base and outfits: one on a network trained on the base's labelled images.",
    )
    start: Start | None = Field(
        None, description="Weights that references start from; None: as `classifier.start`."
    )
    seeds: Count = Field(3, description="Seeds of each reference.")
    steps: Count = Field(200, description="Optimizer steps of each reference.")
    evaluations: Count = Field(
        8, description="Evaluations on validation per training: its stopping points."
    )
    weight_decays: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        (1e-1, 1.0), description="Weight decays tried for every reference, on validation."
    )
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = Field(
        (3e-3,),
        description="Peak learning rates tried for every reference, on validation; a pretrained "
        "`clip` or transformers model: [1e-4] unless given.",
    )
    head_weight_decays: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        (1e-3, 1e-2, 1e-1, 1.0),
        description="erm_balanced_head and controls: weight decays of the head tried.",
    )
    dro_step_size: Rate = Field(0.01, description="group_dro: step size of the group weights.")
    jtt_steps: Count = Field(25, description="jtt: steps of the identification model (T).")
    jtt_upweight: Count = Field(50, description="jtt: copies of a misread image (lambda).")
    dfr_penalty: Literal["l1", "l2"] = Field(
        "l1", description="dfr_train, dfr_validation: penalty of the logistic regressions."
    )


class SearchConfig(Section):
    """Ray Tune over the synthetic ratio and the hyperparameters; objective: validation WGA."""

    trials: Annotated[int, Field(ge=0)] = Field(12, description="Trials; 0: `classifier` as it is.")
    concurrent: Count = Field(2, description="Trials at once.")
    cpus_per_trial: Rate = Field(1.0, description="CPUs per trial.")
    gpus_per_trial: Annotated[float, Field(ge=0)] = Field(0.0, description="GPUs per trial.")
    ratios: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5), description="Synthetic ratios tried; 0: real images only."
    )
    betas: Span = Field((0.2, 1.0), description="Range of beta.")
    temperatures: Span = Field((0.05, 0.5), description="Range of the SupCon temperature (log).")
    learning_rates: Span = Field(
        (1e-3, 6e-3),
        description="Range of stage 1 learning rate (log); a pretrained `clip` or transformers "
        "model: [1e-5, 1e-3] unless given.",
    )
    weight_decays: Span = Field((1e-3, 3e-1), description="Range of stage 1 weight decay (log).")
    steps: tuple[int, int] = Field(
        (100, 250),
        description="Range of stage 1 optimizer steps; [0, 0]: heads on the pretrained backbone.",
    )
    head_weight_decays: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)
    ] = Field(
        (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
        description="Weight decays of the head, all tried on every evaluation of every trial.",
    )
    head_real_shares: Annotated[tuple[Share, ...], Field(min_length=1)] = Field(
        (1.0,),
        description="Values of classifier.head_real_share, all tried with every weight decay of "
        "the head: below 1 pays where a group has few real images.",
    )
    reduction_factor: Annotated[int, Field(ge=2)] = Field(3, description="ASHA's reduction factor.")

    @model_validator(mode="after")
    def _check(self) -> SearchConfig:
        for name in ("betas", "temperatures", "learning_rates", "weight_decays", "steps"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"search.{name}: [low, high] expected, got [{low}, {high}]")
            if name != "betas" and low <= 0 and (name, high) != ("steps", 0):
                raise ValueError(f"search.{name}: positive bounds expected, got [{low}, {high}]")
        if self.betas[0] < 0 or self.betas[1] > 1:
            raise ValueError(f"search.betas: shares in [0, 1] expected, got {list(self.betas)}")
        if not self.ratios or min(self.ratios) < 0:
            raise ValueError(
                f"search.ratios: at least one ratio >= 0 expected, got {list(self.ratios)}"
            )
        return self


class ResourcesConfig(Section):
    """What a worker asks of the cluster, and how many there may be."""

    address: Named | None = Field(
        None, description="Ray cluster to join; None: RAY_ADDRESS if set, else a new local Ray."
    )
    workers: Count = Field(2, description="Workers of a stage in parallel.")
    cpus_per_worker: Rate = Field(1.0, description="CPUs of one worker.")
    gpus_per_worker: Annotated[float, Field(ge=0)] = Field(
        0.0, description="GPUs of one worker; a fraction shares a GPU."
    )
    autoscales: bool = Field(
        False,
        description="The cluster grows on demand: allow asking for more than it has now; "
        "a local Ray never grows.",
    )
    object_store_memory: Annotated[int, Field(ge=78_643_200, le=100_000_000_000_000)] = Field(
        400_000_000,
        description="Local Ray's object store, bytes; `raysynth plan` says what the classifiers' "
        "images take.",
    )


class BenchmarkConfig(Section):
    """`raysynth benchmark`: rows x severities x seeds; what cells have in common is done once."""

    rows: dict[Annotated[str, Field(pattern=NAME)], dict[str, Any]] = Field(
        default_factory=dict,
        description="Row name -> the settings in which it differs, as `section.key: value`.",
    )
    baseline: str = Field(
        "",
        description="Row that the others are compared to seed by seed, beside the best reference "
        "and control; empty: none.",
    )
    by_validation: dict[
        Annotated[str, Field(pattern=NAME)], Annotated[tuple[str, ...], Field(min_length=2)]
    ] = Field(
        default_factory=dict,
        description="Name -> rows: one more row of the table, which is at each severity and seed "
        "the one of these of the best validation WGA. Nothing is trained for it.",
    )
    severities: tuple[Annotated[float, Field(ge=0.5, lt=1.0)] | Literal["original"], ...] = Field(
        (), description="Severities of every row; none: `dataset.severity`."
    )
    seeds: Count = Field(5, description="Run seeds of every cell: `seed`, `seed` + 1, ...")
    concurrent: Count = Field(
        1, description="Cells at once; each asks for the workers of `resources`."
    )
    records: tuple[Place, ...] = Field(
        (),
        description="Files or URIs of records.csv that earlier parts of the benchmark left, here "
        "or on other machines: their cells are in the table and are not run again, "
        "nor are their references for other rows.",
    )


PRETRAINED_RATES: dict[str, dict[str, Any]] = {
    "classifier": {"learning_rate": 1e-4, "full_learning_rate": 1e-4},
    "references": {"learning_rates": (1e-4,)},
    "search": {"learning_rates": (1e-5, 1e-3)},
}
"""Peak learning rates of pretrained `clip` and transformers backbones, which the small network's
spoil (docs/decisions/028-backbones.md)."""


class Config(Section):
    """One run: top-level keys and one section per room."""

    name: str = Field("quickstart", pattern=NAME, description="Run's name.")
    storage_path: Place = Field("runs", description="Folder or URI (s3://, gs://) of the runs.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Seed of the whole run.")
    generator: Generator | Literal["auto"] = Field(
        "clustered_dreambooth",
        description="vanilla: prompt only; lora, dreambooth: LoRA or full weights per group; "
        "clustered_dreambooth: a model per cluster (paper); shared: a model for all groups; edit: "
        "real images edited by it; auto: the best of `candidates`, for each group (ours).",
    )
    candidates: Annotated[tuple[Generator, ...], Field(min_length=1)] = Field(
        ("vanilla", "clustered_dreambooth", "shared", "edit"),
        description="auto: generators that are tried.",
    )
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    base: BaseConfigSection = Field(default_factory=BaseConfigSection)
    prompts: PromptConfig = Field(default_factory=PromptConfig)
    clustering: ClusteringConfig = Field(default_factory=ClusteringConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    classifier: ClassifierConfig = Field(default_factory=ClassifierConfig)
    references: ReferencesConfig = Field(default_factory=ReferencesConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.search.steps[1] == 0 and not self.classifier.starts_pretrained:
            raise ValueError("search.steps: [0, 0] needs a pretrained classifier.backbone")
        if self.search.steps[1] == 0 and self.classifier.schedule != "head":
            raise ValueError(
                f"search.steps: [0, 0], but classifier.schedule={self.classifier.schedule} trains "
                "more than a head. Fix: search.steps=[50, 400], or classifier.schedule=head"
            )
        blind = self.resources.gpus_per_worker > 0 and not self.search.gpus_per_trial
        if blind and self.classifier.backbone != "small":
            raise ValueError(
                "search.gpus_per_trial: 0, so trials would train "
                f"{self.classifier.backbone} without a GPU, though workers have one. Fix: "
                "search.gpus_per_trial=1"
            )
        embedded = self.base.name == "embedded" and self.dataset.name == "outfits"
        if "base_classifier" in self.references.controls and not embedded:
            raise ValueError(
                "references.controls: base_classifier needs base.name=embedded and "
                "dataset.name=outfits, whose labelled pretraining images are known"
            )
        self.classifier.check_share("search.head_real_shares", min(self.search.head_real_shares))
        if self.generator == "auto" and self.finetune.overrides:
            raise ValueError(
                "finetune.overrides: names adapters of one generator, but generator=auto trains "
                f"those of {', '.join(self.candidates)}. Fix: one of these, or no overrides"
            )
        for name in self.candidates if self.generator == "auto" else (self.generator,):
            self._check_generator(name)
        return self

    def _check_generator(self, name: str) -> None:
        """Raise ValueError where a generator could not be told what its models are to learn."""
        engine, prompts = self.finetune.engine, self.prompts
        other = {("lora", "full"): "dreambooth", ("dreambooth", "lora"): "lora"}
        if (name, engine) in other:
            raise ValueError(
                f"finetune.engine={engine}: {name} is defined by its other engine; expected auto. "
                f"Fix: generator={other[name, engine]}, or finetune.engine=auto"
            )
        if name in ("shared", "edit") and "attribute" not in prompts.fields:
            raise ValueError(
                f"prompts.template: {{attribute}} is missing, so nothing tells generator={name} a "
                "class's groups apart. Fix: speak of the attribute, e.g. "
                f"{PromptConfig().template!r}, or another generator"
            )
        full = name == "dreambooth" or (name, engine) == ("clustered_dreambooth", "full")
        if full and not ("token" in prompts.fields and prompts.token.strip()):
            raise ValueError(
                f"prompts: no rare token ({{token}} in prompts.template, prompts.token), which "
                f"generator={name} binds its images to: prior preservation would hold them to what "
                f"the base draws. Fix: prompts.template={PromptConfig().template!r}, or "
                "generator=lora"
            )

    @model_validator(mode="after")
    def _rates_of_the_backbone(self) -> Config:
        """Learning rates that were not given follow the backbone, where it is trained at all."""
        if self.classifier.backbone == "small":
            return self
        ours = self.classifier.starts_pretrained
        theirs = self.for_references().classifier.starts_pretrained
        tuned = {
            "classifier": ours and self.classifier.steps > 0,
            "references": theirs and bool(self.references.names),
            "search": ours and self.search.steps[1] > 0,
        }
        for name in (section for section, is_tuned in tuned.items() if is_tuned):
            given, rates = getattr(self, name).model_fields_set, PRETRAINED_RATES[name].items()
            self._fill(name, {key: rate for key, rate in rates if key not in given})
        self._rates_of_the_mixtures()
        return self

    def _rates_of_the_mixtures(self) -> None:
        """Where references start otherwise, mixtures have the rates of their own start."""
        classifier, references = self.classifier, self.references
        told = classifier.mixture_learning_rates or "learning_rates" in references.model_fields_set
        if told or not classifier.mixtures:
            return
        rates = ReferencesConfig.model_fields["learning_rates"].default
        if classifier.starts_pretrained:
            rates = PRETRAINED_RATES["references"]["learning_rates"]
        if rates != references.learning_rates:
            self._fill("classifier", {"mixture_learning_rates": rates})

    def _fill(self, name: str, values: dict[str, Any]) -> None:
        """Set a section's fields without marking them as given: a row may have its own."""
        section = getattr(self, name)
        filled = type(section).model_construct(section.model_fields_set, **dict(section) | values)
        object.__setattr__(self, name, filled)

    def for_references(self) -> Config:
        """This configuration with the start that references have."""
        start = self.references.start or self.classifier.start
        classifier = self.classifier.model_copy(update={"start": start})
        return self.model_copy(update={"classifier": classifier})

    def for_mixtures(self) -> ReferencesConfig:
        """What mixtures are tuned over: `references`, with the learning rates of their start."""
        rates = self.classifier.mixture_learning_rates or self.references.learning_rates
        return self.references.model_copy(update={"learning_rates": rates})

    def digest(self) -> str:
        """Hex digest of everything that can change a result (not where it runs)."""
        return digest_of(
            self.model_dump(mode="json", exclude={"storage_path", "resources", "name", "benchmark"})
        )


def digest_of(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
