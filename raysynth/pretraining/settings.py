"""The knobs of `pretraining`: what a base of one's own is made from, how large it is, how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator

from raysynth.finetune.settings import TERMS
from raysynth.knobs import Count, Named, Place, Rate, Section, Share, knob
from raysynth.registry import chosen_part

WORDS, COLUMN, NONE = "words", "column", "none"
NORM_GROUPS = {"autoencoder": 8, "denoiser": 16}
"""Groups of the normalisations, of which widths are multiples."""
Steps = Annotated[int, Field(ge=2)]
Widths = Annotated[tuple[Count, ...], Field(min_length=2, max_length=6)]


def _multiples(widths: tuple[int, ...] | None, of: int) -> tuple[int, ...] | None:
    if wrong := [width for width in widths or () if width % of]:
        raise ValueError(f"multiples of {of} expected, got {wrong[0]}")
    return widths


class ClipTraining(Section):
    """The contrastive pair: its text tower conditions the denoiser, its CLIP embeds and scores."""

    width: Annotated[int, Field(ge=8, multiple_of=8)] = knob(128, "Width of the vision tower.")
    layers: Count = knob(5, "Layers of the vision tower.")
    text_width: Annotated[int, Field(ge=8, multiple_of=8)] = knob(
        64, "Width of the text tower and of the shared space."
    )
    steps: Steps = knob(200, "Steps of both towers together; then the text tower is final.")
    alone_steps: Steps = knob(400, "Steps of the vision tower alone, after these.")
    batch_size: Count = knob(128, "Images of a step, of all workers together.")
    learning_rate: Rate = knob(1e-3, "AdamW's learning rate.")


class AutoencoderTraining(Section):
    """The autoencoder: images to latents, four or eight pixels to one, and back."""

    widths: Widths | None = knob(None, "Channels, a level each; None: by `side`.")
    latent_channels: Count = knob(16, "Channels of the latents.")
    steps: Steps = knob(3000, "Steps.")
    batch_size: Count = knob(48, "Images of a step, of all workers together.")
    learning_rate: Rate = knob(2e-3, "AdamW's peak learning rate.")

    @field_validator("widths")
    @classmethod
    def _of_groups(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return _multiples(value, NORM_GROUPS["autoencoder"])


class DenoiserTraining(Section):
    """The denoiser: a UNet on the latents, trained by rectified flow, its weights averaged."""

    widths: Widths | None = knob(None, "Channels, a level each; None: by `side`.")
    steps: Steps = knob(4000, "Steps.")
    batch_size: Count = knob(48, "Latents of a step, of all workers together.")
    learning_rate: Rate = knob(1.5e-3, "AdamW's peak learning rate.")
    average: Annotated[float, Field(ge=0.0, lt=1.0)] = knob(
        0.9985, "Most decay of the moving average of the weights, which is what is exported."
    )
    terms: tuple[chosen_part(TERMS), ...] = knob(  # type: ignore[valid-type]
        (),
        "captions=words: what is added to the loss, of `finetune.terms`: cbdm, coind; of groups "
        "that are rare, or never seen.",
    )
    latents: Count = knob(
        20_000, "Latents that are computed once, from as many views of the training images."
    )

    @field_validator("widths")
    @classmethod
    def _of_groups(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return _multiples(value, NORM_GROUPS["denoiser"])


class PretrainingConfig(Section):
    """A base model of one's own, from the images of `dataset` (`raysynth pretrain`)."""

    side: Literal[32, 64, 128] = knob(32, "Side of the images that the base draws, pixels.")
    start: Place | None = knob(
        None,
        "Base to go on from: `embedded`, or the folder of one that `pretrain` made; its sizes are "
        "taken, and of its text tower all but words that it does not know. None: from nothing.",
    )
    captions: Literal["words", "column", "none"] = knob(
        WORDS,
        "What images are told as. words: labels and attributes of the data set, in the templates "
        "of `prompts` and below; column: a column of metadata.csv or .parquet; none: images alone.",
    )
    column: Named = knob("caption", "captions=column: name of the column.")
    templates: tuple[str, ...] = knob(
        (
            "a picture of a {label} on {attribute}",
            "an image of a {label} on {attribute}",
            "a {token} {label} on {attribute}",
            "{label} on {attribute}",
            "{label}, {attribute}",
        ),
        "captions=words: templates beside prompts.template.",
    )
    balance: Share = knob(
        0.5,
        "captions=words: how far groups are drawn alike; 0: every image as often, 1: every group.",
    )
    mirror: bool = knob(True, "Mirror images at random; false where left and right differ.")
    shift: Annotated[int, Field(ge=0, le=16)] = knob(
        2, "Most pixels that images are shifted by at random, borders reflected."
    )
    clip: ClipTraining = knob(ClipTraining(), "The contrastive pair.")
    autoencoder: AutoencoderTraining = knob(AutoencoderTraining(), "The autoencoder.")
    denoiser: DenoiserTraining = knob(DenoiserTraining(), "The denoiser.")
    judge_steps: Steps = knob(
        500, "captions=words: steps of the classifier that reads labels off the base's images."
    )
    samples: Annotated[int, Field(ge=1)] = knob(
        100, "Images drawn of each group for the bars; of all together without labels."
    )
    preview_steps: Count = knob(500, "Steps between two strips of images.", width=True)
    max_failures: Annotated[int, Field(ge=0)] = knob(
        3, "Times that workers begin again after one was lost.", width=True
    )


@dataclass(frozen=True)
class Sizes:
    """Channels by level: a level more halves the side."""

    autoencoder: tuple[int, ...]
    denoiser: tuple[int, ...]

    @property
    def shrinks(self) -> int:
        """Pixels of a latent along each side."""
        return 2 ** (len(self.autoencoder) - 1)


OF_SIDE = {
    32: Sizes((16, 32, 64), (96, 128)),
    64: Sizes((16, 32, 64), (96, 128, 160)),
    128: Sizes((16, 32, 64, 64), (96, 128, 160)),
}
"""Latents of 8, 16 and 16; attention at 4 x 4, and where there is room at 8 x 8."""


def sizes_of(settings: PretrainingConfig) -> Sizes:
    """Those of a side, but for what is asked."""
    usual = OF_SIDE[settings.side]
    return Sizes(
        settings.autoencoder.widths or usual.autoencoder,
        settings.denoiser.widths or usual.denoiser,
    )
