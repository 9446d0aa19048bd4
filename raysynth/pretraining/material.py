"""What a base is made from, in memory: pixels, labels, attributes, captions; test images never.

With labels and attributes a data set's layouts read it, at its severity, as for a run: training
images are learned from, and bars are measured on validation images. A column of captions, or images
alone, are read from all images below a folder, of which `dataset.validation_share` are held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raysynth.datasets.damage import Damaged
from raysynth.datasets.files import below, clipped, open_folder, reaching, require_files
from raysynth.datasets.heads import read_heads
from raysynth.datasets.layouts.folder import METADATA
from raysynth.datasets.layouts.tree import is_image
from raysynth.datasets.listing import list_dataset
from raysynth.datasets.metadata import read_metadata
from raysynth.datasets.pictures import Unreadable, read_files
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.pretraining.captions import Captions, of_column, of_nothing, of_words
from raysynth.pretraining.settings import COLUMN, WORDS, PretrainingConfig
from raysynth.pretraining.terms import check_captions
from raysynth.storage.tables import decode_bytes

FEWEST = 64
"""Training images below which no base is made."""
READ_AT_ONCE = 1000
BELOW_FOLDERS = ("folder", "tree")
"""Layouts of images that lie below `dataset.path` as files."""
Fetch = Callable[[np.ndarray], Sequence[bytes | Unreadable]]
"""Rows -> encoded images, or why they cannot be read."""


@dataclass(frozen=True)
class Material:
    """Images and what they are told as; without pixels until they are read."""

    captions: Captions
    label: Tensor
    """[N] int64; -1: not known."""
    attribute: Tensor
    """[N] int64; -1: not known."""
    held_out: Tensor
    """[N] bool: no training sees them."""
    groups: Groups | None = None
    """captions=words: names and words."""
    pixels: Tensor = field(default_factory=lambda: torch.empty(0))
    """[N, 3, S, S] uint8."""

    @cached_property
    def trained(self) -> Tensor:
        """Rows of the images that are learned from."""
        return torch.nonzero(~self.held_out)[:, 0]

    @cached_property
    def measured(self) -> Tensor:
        """Rows of the images that the bars are measured on."""
        return torch.nonzero(self.held_out)[:, 0]

    def weights(self, balance: float) -> Tensor:
        """[T] how often each trained image is drawn; `balance`: 0 all alike, 1 all groups alike."""
        if self.groups is None:
            return torch.ones(len(self.trained))
        width = len(self.groups.attribute_names) + 1  # one more: not known
        group = (self.label * width + self.attribute + 1)[self.trained]
        sizes: Tensor = torch.bincount(group)[group].float() ** -balance
        return sizes


@dataclass(frozen=True)
class Source:
    """A listed data set: the material, and where its pixels come from."""

    material: Material
    ids: Sequence[str]
    fetch: Fetch
    skips: bool
    """Whether images that cannot be read are left out."""
    path: str = ""
    """Folder or URI that `ids` are files of; "": they are none."""

    def check_heads(self) -> None:
        """Refuse files that are no images by their first bytes; DataError that names them."""
        if self.path and not self.skips:
            read_heads(self.path, self.ids, ", or dataset.on_error=skip")

    def opened(self, side: int, most: int | None = None) -> Material:
        """The material with its pixels, squares of `side`; `most`: of so many images, spread.

        Raises
        ------
        DataError
            Images that cannot be read, unless `dataset.on_error` is skip.
        """
        count = len(self.ids)
        rows = np.arange(count)[:: max(1, -(-count // most)) if most else 1]
        pixels, kept = [], []
        for start in range(0, len(rows), READ_AT_ONCE):
            chosen, read = rows[start : start + READ_AT_ONCE], []
            for row, image in zip(chosen.tolist(), self.fetch(chosen), strict=True):
                if not isinstance(image, Unreadable):
                    kept.append(row)
                    read.append(image)
                elif not self.skips:
                    raise DataError(
                        f"dataset: {clipped(self.ids[row])} cannot be read ({image.reason}). Fix: "
                        "replace or remove it, or dataset.on_error=skip"
                    )
            pixels.append(decode_bytes(pa.array(read, pa.binary()), side))
        if len(kept) < min(FEWEST, len(rows)):
            raise DataError(
                f"dataset: {len(kept):,} of {len(rows):,} images can be read; expected {FEWEST} at "
                "least. Fix: replace the others"
            )
        own = torch.tensor(kept)
        return replace(
            self.material,
            label=self.material.label[own],
            attribute=self.material.attribute[own],
            held_out=self.material.held_out[own],
            pixels=torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2).contiguous(),
        )


def list_material(
    dataset: DatasetConfig, prompts: PromptConfig, settings: PretrainingConfig, seed: int
) -> Source:
    """What there is to learn from; no image is opened.

    Raises
    ------
    ConfigError, DataError
        Files, names, groups or the column of captions are not what is needed; too few images.
    """
    if settings.captions == WORDS:
        found = _of_groups(dataset, prompts, settings, seed)
    else:
        found = _of_files(dataset, settings, seed)
    check_captions(settings, found.material.captions)
    count = len(found.material.trained)
    if count < FEWEST or not len(found.material.measured):
        raise DataError(
            f"pretraining: {count:,} training and {len(found.material.measured):,} held-out images "
            f"in {dataset.path or dataset.name}; expected {FEWEST} and 1 at least. Fix: more "
            "images, or fine-tune a base that knows them (base.name)"
        )
    return found


def _of_groups(
    config: DatasetConfig, prompts: PromptConfig, settings: PretrainingConfig, seed: int
) -> Source:
    """A layout's training and validation images."""
    dataset, groups, listing = list_dataset(config, seed)
    split = np.asarray(listing["split"].to_pylist())
    if isinstance(dataset, Damaged):
        raise ConfigError(
            f"pretrain: masks or noise are known of images of {config.path or config.name}, and a "
            "base would learn what they hide as it is shown; expected whole images. Fix: "
            "dataset.missing=0 dataset.noise=0, no columns mask and noise, or fine-tune a base "
            "with finetune.objective=gsure"
        )
    listing = listing.filter(split != "test")
    label, group = (listing[name].to_numpy() for name in ("label", "group"))
    known = config.knows_attributes or len(groups.attribute_names) > 1
    attribute = np.where((group < 0) | (not known), -1, listing["attribute"].to_numpy())
    material = Material(
        of_words(groups, prompts, settings.templates, attributes=known),
        torch.from_numpy(label.astype(np.int64)),
        torch.from_numpy(attribute.astype(np.int64)),
        torch.from_numpy(split[split != "test"] == "validation"),
        groups,
    )
    return Source(
        material,
        listing["id"].to_pylist(),
        lambda rows: dataset.images(listing.take(rows)),
        config.on_error == "skip",
        str(config.path) if config.name in BELOW_FOLDERS else "",
    )


def _of_files(config: DatasetConfig, settings: PretrainingConfig, seed: int) -> Source:
    """All images below a folder, those of a column's rows or every one."""
    if config.name not in BELOW_FOLDERS:
        raise ConfigError(
            f"pretraining.captions: {settings.captions} reads the image files below dataset.path, "
            f"got dataset.name={config.name}. Fix: dataset.name=folder, or "
            f"pretraining.captions={WORDS}"
        )
    path = str(config.path)
    with reaching(path):
        if settings.captions == COLUMN:
            names, texts = _captioned(path, settings.column)
            captions, label = of_column(texts)
        else:
            names, captions = _images_below(path), of_nothing()
            label = [0] * len(names)
    held_out = np.random.default_rng([seed, 307]).random(len(names)) < config.validation_share
    material = Material(
        captions,
        torch.tensor(label, dtype=torch.int64),
        torch.full((len(names),), -1),
        torch.from_numpy(held_out),
    )

    def fetch(rows: np.ndarray) -> Sequence[bytes | Unreadable]:
        return read_files(path, [names[row] for row in rows], None, config.max_megapixels)

    return Source(material, names, fetch, config.on_error == "skip", path)


def _captioned(path: str, column: str) -> tuple[list[str], list[str]]:
    tree = f"expected {path}/metadata.csv or .parquet with file_name and {column}, of every image "
    tree += "(pretraining.column names the column)"
    for name in METADATA:
        frame = read_metadata(path, name, ("file_name", column), tree)
        if frame is None:
            continue
        blank = frame.apply(lambda cells: cells.str.strip() == "")
        if (empty := (frame.isna() | blank).any(axis=1)).any():
            raise DataError(
                f"{path}/{name}: {int(empty.sum()):,} row(s) with an empty file_name or {column}; "
                "expected a text in each. Fix: fill or remove them"
            )
        names = below(path, frame["file_name"])
        require_files(path, names, "the metadata", tree)
        return names, frame[column].tolist()
    raise DataError(f"dataset.path: no metadata.csv or metadata.parquet in {path}; {tree}. Fix: it")


def _images_below(path: str) -> list[str]:
    storage, root = open_folder(path)
    found = (name.removeprefix(root).lstrip("/") for name in storage.find(root))
    names = sorted(name for name in found if is_image(name))
    if not names:
        raise DataError(f"dataset.path: no image below {path}. Fix: the folder of the images")
    return names
