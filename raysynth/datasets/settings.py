"""The knobs of `dataset`: real images in, how biased, how their groups are spoken."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raysynth.knobs import Count, Named, Place, Section, Share, knob
from raysynth.registry import Registry, named_part

LAYOUTS: Registry[Any] = Registry("raysynth.datasets.layouts", "data set")
"""Of `layout.Layout`, which speaks of the knobs below."""
COLUMN, TEXTS = "column", "txt"
"""What `dataset.captions` names: a column of a table, or texts beside the images."""


def _severity(values: dict[str, Any]) -> Any:
    """The layout's own; `original` where its name is refused anyway."""
    return LAYOUTS[values["name"]].severity if "name" in values else "original"


class DatasetConfig(Section):
    """Real images in: which, from where, how biased, how their groups are spoken."""

    name: named_part(LAYOUTS) = knob(  # type: ignore[valid-type]
        "outfits",
        "outfits: embedded; folder: images + metadata.csv or .parquet; tree: images in folders "
        "<label>/<attribute>, below those of splits if there are any; hub: Parquet files with a "
        "column of images, as Hugging Face has them; the others in their published layouts.",
    )
    path: Place | None = knob(
        None,
        "Folder or URI of the images, hf://datasets/OWNER/NAME too; outfits: Fashion-MNIST's IDX "
        "files, if others than the embedded ones are wanted.",
    )
    label: Named | None = knob(
        None,
        "celeba: attribute that is predicted (None: Blond_Hair); utkface: gender, age or race "
        "(None: gender); hub: column (None: label).",
    )
    attribute: Named | None = knob(
        None,
        "celeba: spurious attribute (None: Male); utkface: gender, age or race (None: age, FFR's "
        "rule); hub: column (None: attribute).",
    )
    pair: tuple[str, str] = knob(
        ("pullover", "coat"), "outfits: the two garments told apart (label 0, label 1)."
    )
    severity: Annotated[float, Field(ge=0.5, lt=1.0)] | Literal["original"] = Field(
        default_factory=_severity,
        description="Share of bias-aligned training images within a class; `original`: as it is. "
        "Default: 0.99 for outfits, original for other data sets.",
    )
    thin_validation: bool = knob(
        False, "Thin the validation images to the severity too, as FFR does."
    )
    shots: Count | None = knob(
        None,
        "Training images of every group, drawn by seed of those at the severity; None: all.",
        neutral=None,
    )
    train_images: Count = knob(4000, "outfits: training images, both labels together.")
    validation_images: Count = knob(400, "outfits: validation images, group-balanced.")
    test_images: Count = knob(2000, "outfits: test images, group-balanced.")
    validation_share: Share = knob(
        0.1, "folder, tree, hub without this split: share of each group."
    )
    test_share: Share = knob(0.2, "folder, tree, hub without split: share of each group.")
    on_error: Literal["refuse", "skip"] = knob(
        "refuse", "Unreadable images: refuse the run, or skip and count them."
    )
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = knob(
        None, "Side of the stored square images, pixels; None: as they come (folder)."
    )
    missing: Annotated[float, Field(ge=0.0, lt=1.0)] = knob(
        0.0,
        "Share of patches of 4 x 4 pixels that are taken out of every training image, to simulate "
        "occlusion (finetune.objective=gsure); they get the mean colour of the rest.",
        neutral=0.0,
    )
    noise: Annotated[float, Field(ge=0.0, le=255.0)] = knob(
        0.0,
        "Standard deviation, in 0..255, of noise that is added to the pixels of every training "
        "image, to simulate it.",
        neutral=0.0,
    )
    hidden_attributes: Share = knob(
        0.0,
        "Share of the training images of every group whose attribute is left out, by seed, to "
        "simulate labels that are missing; one of a group stays, unless all are hidden (1).",
        neutral=0.0,
    )
    wrong_attributes: Share = knob(
        0.0,
        "Share of the training images of every group that are given another attribute, by seed, to "
        "simulate wrong labels.",
        neutral=0.0,
    )
    max_megapixels: Annotated[float, Field(gt=0.0, le=178.0)] = knob(
        64.0,
        "Images of more million pixels are unreadable (by their header: a few bytes can declare "
        "any size, and decoding takes 4 bytes per pixel and more).",
        neutral=64.0,
    )
    label_words: dict[str, str] | None = knob(
        None, "Label name -> words in prompts; None: from the data set."
    )
    attribute_words: dict[str, str] | None = knob(
        None, "Attribute name -> words in prompts; None: from the data set."
    )

    aligned: dict[str, str] | None = knob(
        None,
        "Label name -> attribute name that it goes with (bias-aligned; kept whole by severity). "
        "Labels not named: the data set's own (celeba Blond_Hair or Smiling x Male, utkface gender "
        "x age: FFR's; waterbirds), else the largest group.",
        neutral=None,
    )

    attributes: Literal["given", "unknown"] = knob(
        "given",
        "given: every image has its attribute. unknown: those of training and validation images "
        "are found by grouping.method (conflict_mining unless another is named; dmis: those that "
        "are missing); own images may then do without the column or folder of attributes, or leave "
        "cells of the column empty.",
        neutral="given",
    )
    captions: Named | None = knob(
        None,
        "Where the training images' captions are: a column of metadata.csv or .parquet (folder), a "
        "column (hub), or txt, the text of an image's name beside it (tree). Each image is trained "
        "with its group's prompt and its caption (prompts.captioned), and a group's images are "
        "drawn by the captions of its own. None: by the group's prompt alone.",
        neutral=None,
    )

    @model_validator(mode="after")
    def _check(self) -> DatasetConfig:
        layout = LAYOUTS[self.name]
        if layout.has_files and not self.path:
            raise ValueError(
                f"dataset.path is missing: `{self.name}` needs the folder of the images "
                f"({layout.reads})"
            )
        for key in ("label", "attribute"):
            if getattr(self, key) is not None and layout.pair is None:
                able = [name for name in LAYOUTS if LAYOUTS[name].pair]
                raise ValueError(f"dataset.{key}: only {', '.join(able)} choose it")
        if self.label is not None and self.label == self.attribute:
            raise ValueError(f"dataset.attribute: another one than the label {self.label} expected")
        layout.check(self)
        self._check_captions(layout)
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                "dataset.validation_share + dataset.test_share: nothing is left to train"
            )
        return self

    def _check_captions(self, layout: Any) -> None:
        """Refuse captions that the layout has not, or cannot have by that name; ValueError."""
        if self.captions is None:
            return
        said = f"dataset.captions={self.captions}"
        if not layout.captions:
            able = ", ".join(name for name in LAYOUTS if LAYOUTS[name].captions)
            raise ValueError(
                f"{said}: dataset.name={self.name} has no captions; expected one of {able}. Fix: "
                "leave dataset.captions out, or name the images in a metadata.csv "
                "(dataset.name=folder)"
            )
        if layout.captions == TEXTS and self.captions != TEXTS:
            raise ValueError(
                f"{said}: dataset.name={self.name} reads an image's caption from the text beside "
                f"it (0001.txt beside 0001.jpg); expected {TEXTS}. Fix: dataset.captions={TEXTS}"
            )
        taken = ("file_name", self.label or "label", self.attribute or "attribute", "split")
        if self.captions in taken:
            raise ValueError(
                f"{said}: that column says something else of the images; expected none of "
                f"{', '.join(taken)}. Fix: name the column of captions"
            )

    @property
    def knows_attributes(self) -> bool:
        """Whether every image has its attribute."""
        return self.attributes == "given" and not self.hidden_attributes

    @property
    def has_files(self) -> bool:
        """Whether the images are files below `path`; others are composed, the same everywhere."""
        return bool(LAYOUTS[self.name].has_files)

    @property
    def garments(self) -> tuple[str, ...]:
        """The embedded models' garments that the labels are; none: the images are no garments."""
        found: tuple[str, ...] = LAYOUTS[self.name].garments(self)
        return found

    @property
    def stored_side(self) -> int | None:
        """Side of the real table's images, pixels; None: that of the files, not known yet."""
        side: int | None = LAYOUTS[self.name].side or self.image_size
        return side
