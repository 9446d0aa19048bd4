"""The knobs of `dataset`: real images in, how biased, how their groups are spoken."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from raysynth.knobs import Count, Named, Place, Section, Share, knob


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
    max_megapixels: Annotated[float, Field(gt=0.0, le=178.0)] = knob(
        64.0,
        "Images of more million pixels are unreadable (by their header: a few bytes "
        "can declare any size, and decoding takes 4 bytes per pixel and more).",
        neutral=64.0,
    )
    label_words: dict[str, str] | None = Field(
        None, description="Label name -> words in prompts; None: from the data set."
    )
    attribute_words: dict[str, str] | None = Field(
        None, description="Attribute name -> words in prompts; None: from the data set."
    )

    aligned: dict[str, str] | None = knob(
        None,
        "Label name -> attribute name that it goes with (bias-aligned; kept whole by "
        "severity). Labels not named: the data set's own (celeba Blond_Hair or Smiling x Male, "
        "utkface gender x age: FFR's; waterbirds), else the largest group.",
        neutral=None,
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
