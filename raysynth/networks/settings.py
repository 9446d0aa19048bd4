"""The knobs of `classifier`: the network and its two stages of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from raysynth.knobs import Count, Named, Place, Rate, Section, Share, decides, knob
from raysynth.models.settings import CLIP, clip_of
from raysynth.networks.rates import FROM_SCRATCH, PRETRAINED, Rates
from raysynth.registry import Registry, named_part

# By the names of their rooms, which build on this one.
MIXTURES = Registry[Any]("raysynth.references.methods", "reference").only(
    "mixture", lambda part: part.kind == "mixture"
)
HEAD_OBJECTIVES = Registry[Any]("raysynth.heads.objectives", "head objective").only(
    "head objective", lambda part: bool(part.schedules)
)
Start = Literal["scratch", "pretrained"]
SMALL = "small"
"""`classifier.backbone`: the small residual network."""
EMBEDDED_WIDTHS = (32, 64, 128)
"""Of the small network whose weights are shipped."""
CLIP_LORA = "clip_lora"
"""`classifier.backbone`: `base.clip` with adapters, see `networks.clip_lora`."""


class ClassifierConfig(Section):
    """The backbone and raysynth's own two-stage training."""

    backbone: Place = knob(
        SMALL,
        "`small` residual network, `clip` (the image embedding of base.clip), `clip_lora` (that "
        "CLIP with adapters on both towers, as DataDream), `efficientnet_lite0` (trained on "
        "ImageNet; needs raysynth[imagenet]), or a transformers model.",
    )
    revision: Named | None = knob(
        None,
        "Hub revision of `backbone`, as base.revision; clip: base.clip_revision.",
        neutral=None,
    )
    start: Start | None = knob(
        None,
        "Weights that trainings start from. small, pretrained: embedded, trained on "
        "the base's garments other than pullover and coat. None: scratch for small, pretrained "
        "for others.",
    )
    image_size: Annotated[int, Field(ge=8)] | None = knob(
        None, "Side of the network's input, pixels; None: the real images' own."
    )
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = knob(
        (32, 64, 128), "small: channels of its stages."
    )
    precision: Literal["auto", "float32", "bfloat16"] = knob(
        "auto", "Classifier's arithmetic; auto: bfloat16 where the device has it."
    )
    flip: bool = knob(True, "Augmentation: mirror images with probability 1/2.")
    crop_padding: Annotated[int, Field(ge=0)] = knob(
        2, "Augmentation: border of the random crops, pixels; 0: no crops."
    )
    evaluations: Count = knob(
        4, "Evaluations on validation per training: early stopping's, ASHA's rungs."
    )
    batch_size: Count = knob(64, "Images per step.")
    ratio: Annotated[float, Field(ge=0)] = knob(
        1.0, "Synthetic / real images used; above 0: one of each group at least."
    )
    beta: Share = knob(0.5, "Stage 1 loss = beta * CE + (1-beta) * SupCon.")
    temperature: Rate = knob(0.1, "SupCon's temperature.")
    learning_rate: Rate | None = knob(
        None,
        "Stage 1 peak learning rate. None: 3e-3; a pretrained backbone other than small: 1e-4.",
    )
    weight_decay: Annotated[float, Field(ge=0)] = knob(1e-2, "Stage 1 weight decay.")
    steps: Annotated[int, Field(ge=0)] = knob(
        300, "Stage 1 optimizer steps; 0: a pretrained backbone stays as it is."
    )
    schedule: Literal["head", "full", "joint"] = knob(
        "head",
        "head: stage 2 fits the head on real images (paper); full: stage 2 trains all "
        "weights on them; joint: one stage on real and synthetic images (DataDream).",
    )
    head_objective: named_part(HEAD_OBJECTIVES) = knob(  # type: ignore[valid-type]
        "balanced",
        "Stage 2 objective on real images: plain (paper), group-balanced, Group-DRO, "
        "or (head only) the mean of heads on group-balanced subsets. joint: how real images are "
        "drawn.",
    )
    head_weight_decay: Annotated[float, Field(ge=0)] = knob(
        0.3, "head: weight decay of the linear head."
    )
    head_real_share: Share = knob(
        1.0,
        "head: lambda of lambda * CE(real) + (1-lambda) * CE(synthetic), for the head "
        "alone; 1: real images only (paper).",
        neutral=1.0,
    )
    full_steps: Count = knob(60, "full: optimizer steps of stage 2.")
    full_learning_rate: Rate | None = knob(
        None,
        "full: stage 2 peak learning rate. None: 1e-3; a pretrained backbone other than small: "
        "1e-4.",
    )
    dro_step_size: Rate = knob(0.01, "full with group_dro: step size of the group weights.")
    real_share: Share = knob(
        0.8, "joint: lambda of lambda * CE(real) + (1-lambda) * CE(synthetic)."
    )
    joint_means: bool = knob(
        False,
        "joint: half of every batch is real, so that both terms are means over as many images "
        "(DataDream); else half of the images on average.",
        neutral=False,
    )
    mix: Share = knob(
        0.0,
        "joint: share of batches that are mixed by CutMix or MixUp, real and synthetic images "
        "each among themselves (DataDream: 0.2).",
        neutral=0.0,
    )
    seeds: Count = knob(3, "Seeds of each final classifier.")
    mixtures: tuple[named_part(MIXTURES), ...] = knob(  # type: ignore[valid-type]
        (),
        "Also trained on the run's synthetic images, tuned like the references: over "
        "references.learning_rates, or those that `start` has by itself.",
    )

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        """A knob of earlier versions, which wrote it into config.yaml."""
        if not isinstance(values, dict) or "mixture_learning_rates" not in values:
            return values
        if values["mixture_learning_rates"] is not None:
            raise ValueError(
                "classifier.mixture_learning_rates: mixtures are tuned over "
                "references.learning_rates where these are given, else over those that their start "
                "has by itself. Fix: leave it out; references.learning_rates"
            )
        return {key: value for key, value in values.items() if key != "mixture_learning_rates"}

    @property
    def starts_pretrained(self) -> bool:
        """Trainings start from weights that know something."""
        if self.start is None:
            return self.backbone != SMALL
        return self.start == "pretrained"

    def rates(self, tuned: bool = True) -> Rates:
        """The learning rates that the network has by itself; `tuned`: its weights are trained."""
        pretrained = tuned and self.backbone != SMALL and self.starts_pretrained
        return PRETRAINED if pretrained else FROM_SCRATCH

    def settled(self) -> ClassifierConfig:
        """This section with the network's own learning rates where it has none."""
        own = self.rates(self.steps > 0)
        given = {"learning_rate": self.learning_rate, "full_learning_rate": self.full_learning_rate}
        filled = {"learning_rate": own.stage_one, "full_learning_rate": own.full}
        told = {name: rate for name, rate in given.items() if rate is not None}
        return self.model_copy(update=filled | told)

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
        self.check_joint("classifier.joint_means", self.joint_means)
        self.check_joint("classifier.mix", self.mix)
        if self.joint_means and self.batch_size % 2:
            raise ValueError(
                f"classifier.batch_size: {self.batch_size} images cannot be half real; expected an "
                "even number with classifier.joint_means. Fix: classifier.batch_size="
                f"{self.batch_size + 1}"
            )
        return self

    def check_joint(self, key: str, given: Any) -> None:
        """Refuse what only the joint loss knows, if given, where another is trained; ValueError."""
        if given and self.schedule != "joint":
            raise ValueError(
                f"{key}={given}: is of the loss on real and synthetic images together, but "
                f"classifier.schedule={self.schedule} trains on them apart. Fix: "
                f"classifier.schedule=joint, or leave {key} out"
            )

    def check_share(self, key: str, share: float) -> None:
        """Refuse a head on synthetic images too where the schedule has none; ValueError."""
        mixed = HEAD_OBJECTIVES[self.head_objective].mixed
        if share < 1 and not (self.schedule == "head" and mixed):
            known = [name for name in HEAD_OBJECTIVES if HEAD_OBJECTIVES[name].mixed]
            raise ValueError(
                f"{key}: below 1 needs classifier.schedule head and classifier.head_objective "
                f"{' or '.join(known)}, got {self.schedule} and {self.head_objective}"
            )


FINAL = ("seeds", "mixtures")
"""Knobs of the final classifiers alone: no trial uses them."""
OWN_TRAINING = (
    "evaluations",
    "ratio",
    "beta",
    "temperature",
    "learning_rate",
    "weight_decay",
    "steps",
    "schedule",
    "head_objective",
    "head_weight_decay",
    "head_real_share",
    "full_steps",
    "full_learning_rate",
    "dro_step_size",
    "real_share",
    "joint_means",
    "mix",
)
"""Knobs of raysynth's own training: references have theirs in their own section."""


def searched_knobs(config: Any) -> dict[str, Any]:
    """The classifier knobs that a trial uses: not those of the final classifiers."""
    return decides(config.classifier.settled(), *FINAL) | _tower(config)


def shared_knobs(config: Any) -> dict[str, Any]:
    """The classifier knobs that references share: the network and how images reach it."""
    start = config.references.network(config.classifier).starts_pretrained
    shared = decides(config.classifier, "start", *OWN_TRAINING, *FINAL)
    return shared | _tower(config) | {"start": start}


def _tower(config: Any) -> dict[str, Any]:
    """What `classifier.backbone: clip` and `clip_lora` stand for."""
    own = config.classifier.backbone in (CLIP, CLIP_LORA)
    return {"tower": clip_of(config.base)} if own else {}
