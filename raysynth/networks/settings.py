"""The knobs of `classifier`: the network and its two stages of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from raysynth.knobs import Count, Named, Place, Rate, Section, Share
from raysynth.registry import Registry, named_part

# By the names of their rooms, which build on this one.
MIXTURES = Registry[Any]("raysynth.references.methods", "reference").only(
    "mixture", lambda part: part.kind == "mixture"
)
HEAD_OBJECTIVES = Registry[Any]("raysynth.heads.objectives", "head objective").only(
    "head objective", lambda part: bool(part.schedules)
)
Start = Literal["scratch", "pretrained"]


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
    head_objective: named_part(HEAD_OBJECTIVES) = Field(  # type: ignore[valid-type]
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
    mixtures: tuple[named_part(MIXTURES), ...] = Field(  # type: ignore[valid-type]
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
        if self.schedule not in HEAD_OBJECTIVES[self.head_objective].schedules:
            known = [n for n in HEAD_OBJECTIVES if self.schedule in HEAD_OBJECTIVES[n].schedules]
            raise ValueError(
                f"classifier.head_objective: schedule {self.schedule} has {', '.join(known)}, "
                f"got {self.head_objective}"
            )
        self.check_share("classifier.head_real_share", self.head_real_share)
        return self

    def check_share(self, key: str, share: float) -> None:
        """Refuse a head on synthetic images too where the schedule has none; ValueError."""
        mixed = HEAD_OBJECTIVES[self.head_objective].mixed
        if share < 1 and not (self.schedule == "head" and mixed):
            known = [name for name in HEAD_OBJECTIVES if HEAD_OBJECTIVES[name].mixed]
            raise ValueError(
                f"{key}: below 1 needs classifier.schedule head and classifier.head_objective "
                f"{' or '.join(known)}, got {self.schedule} and {self.head_objective}"
            )
