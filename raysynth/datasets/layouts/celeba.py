"""celeba: Liu et al. 2015 (Large-scale CelebFaces Attributes), in the layout they published.

Any two of its forty attributes are label and attribute; the field's pair is Blond_Hair x Male.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from raysynth.datasets.files import (
    clipped,
    open_folder,
    refuse_doubles,
    require_files,
    require_two,
    some,
)
from raysynth.datasets.layout import Below, Layout
from raysynth.datasets.pictures import MEGAPIXELS, Unreadable, read_files
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import ConfigError, DataError
from raysynth.storage.tables import SPLITS

IMAGES = "img_align_celeba"
PAIR = ("Blond_Hair", "Male")
"""Label and attribute, unless others are asked for."""
ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
TREE = f"""expected
  <dataset.path>/{ATTRIBUTES}      count, 40 names, then `000001.jpg -1 1 ...`
  <dataset.path>/{PARTITION}   `000001.jpg 0`: 0 train, 1 validation, 2 test
  <dataset.path>/{IMAGES}/000001.jpg
Fix: dataset.path=<folder of the unpacked CelebA files>"""
WORDS = {
    "Blond_Hair": ("person with dark hair", "person with blond hair"),
    "Male": ("female", "male"),
    "Smiling": ("serious", "smiling"),
    "Young": ("old", "young"),
    "Eyeglasses": ("without glasses", "with glasses"),
}
"""How prompts speak of an attribute's absence and presence; others by their names."""
ALIGNED = {
    ("Blond_Hair", "Male"): ("male", "female"),
    ("Smiling", "Male"): ("male", "female"),
}
"""What the label's absence and presence go with: FFR's for Smiling (arXiv 2308.04553), and the same
for Blond_Hair, where women are the largest group with and without."""


@dataclass(frozen=True)
class CelebA:
    """The folder of the published files.

    `label`, `attribute`: names of two of the forty attributes. `image_size` (pixels) makes centre
    squares of the 178 x 218 images.
    """

    path: str
    label: str = PAIR[0]
    attribute: str = PAIR[1]
    image_size: int | None = None
    megapixels: float = MEGAPIXELS

    def __post_init__(self) -> None:
        """Raises ConfigError when label and attribute are one."""
        require_two(self.label, self.attribute)

    @property
    def label_names(self) -> tuple[str, ...]:
        """`not_<name>`, `<name>` in lower case."""
        return _names(self.label)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """`not_<name>`, `<name>` in lower case; `female`, `male` for Male."""
        return _names(self.attribute)

    @property
    def label_words(self) -> tuple[str, ...]:
        """Of WORDS, or the names with spaces."""
        return _words(self.label)

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """Of WORDS, or the names with spaces."""
        return _words(self.attribute)

    @property
    def aligned(self) -> tuple[str, ...]:
        """Of ALIGNED; none for other pairs."""
        return ALIGNED.get((self.label, self.attribute), ())

    def listing(self) -> pa.Table:
        """`id` (= file name), `label, attribute: int32`, `split`; no image is opened.

        Raises
        ------
        ConfigError
            An attribute that is not one of the forty.
        DataError
            A file is missing or foreign, or the lists name different images.
        """
        values, partition = self._attributes(), self._partition()
        alone = values.index.symmetric_difference(partition.index)
        if len(alone):
            raise DataError(
                f"{self.path}: {some(alone)} in only one of {ATTRIBUTES} and {PARTITION}; {TREE}"
            )
        partition = partition.loc[values.index]
        names = values.index.astype(str).tolist()
        require_files(f"{self.path}/{IMAGES}", names, ATTRIBUTES, TREE)
        return pa.table(
            {
                "id": pa.array(names, pa.string()),
                "label": pa.array((values[self.label] > 0).astype(np.int32), pa.int32()),
                "attribute": pa.array((values[self.attribute] > 0).astype(np.int32), pa.int32()),
                "split": pa.array([SPLITS[number] for number in partition], pa.string()),
            }
        )

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded 8-bit RGB image of each row, or why the file cannot be read."""
        folder, names = f"{self.path}/{IMAGES}", rows["id"].to_pylist()
        return read_files(folder, names, self.image_size, self.megapixels)

    def _attributes(self) -> pd.DataFrame:
        """[N, 40] of -1 and 1 by file name."""
        lines = self._lines(ATTRIBUTES)
        if not lines[0].strip().isdigit():
            raise DataError(
                f"{self.path}/{ATTRIBUTES}: the first line is not the number of images but "
                f"{clipped(lines[0])!r}; {TREE}"
            )
        names = lines[1].split() if len(lines) > 2 else []
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(
                f"{self.path}/{ATTRIBUTES}: {some(twice)} named more than once in the second "
                f"line; expected a column per attribute; {TREE}"
            )
        for key, name in (("label", self.label), ("attribute", self.attribute)):
            if names and name not in names:
                raise ConfigError(
                    f"dataset.{key}: no attribute {clipped(name)!r} in {self.path}/{ATTRIBUTES}; "
                    f"expected one of {', '.join(names)[:600]}. Fix: dataset.{key}=<one of them>"
                )
        rows = [line.split() for line in lines[2:]]
        wrong = [row for row in rows if len(row) != len(names) + 1 or set(row[1:]) - {"-1", "1"}]
        if not rows or wrong or lines[0].strip() != str(len(rows)):
            found = f"{clipped(lines[0])!r} images announced, {len(rows)} listed"
            first = f", the first foreign row begins {_start(wrong[0])!r}" if wrong else ""
            raise DataError(f"{self.path}/{ATTRIBUTES}: {found}{first}; {TREE}")
        values = np.array([row[1:] for row in rows]).astype(np.int8)
        return pd.DataFrame(values, index=pd.Index([row[0] for row in rows]), columns=names)

    def _partition(self) -> pd.Series:
        rows = [line.split() for line in self._lines(PARTITION)]
        wrong = [row for row in rows if len(row) != 2 or row[1] not in ("0", "1", "2")]
        if wrong:
            raise DataError(f"{self.path}/{PARTITION}: row {_start(wrong[0])!r}; {TREE}")
        refuse_doubles(f"{self.path}/{IMAGES}", [name for name, _ in rows], PARTITION)
        return pd.Series({name: int(number) for name, number in rows})

    def _lines(self, name: str) -> list[str]:
        filesystem, root = open_folder(self.path)
        if not filesystem.isfile(f"{root}/{name}"):
            raise DataError(f"dataset.path: no {self.path}/{name}; {TREE}")
        text = filesystem.cat_file(f"{root}/{name}").decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip()] or [""]


def _start(row: list[str]) -> str:
    return clipped(" ".join(row[:3]))


def _names(attribute: str) -> tuple[str, ...]:
    if attribute == "Male":
        return ("female", "male")
    return (f"not_{attribute.lower()}", attribute.lower())


def _words(attribute: str) -> tuple[str, ...]:
    return WORDS.get(attribute) or tuple(name.replace("_", " ") for name in _names(attribute))


def _open(config: DatasetConfig, seed: int) -> CelebA:
    pair = (config.label or PAIR[0], config.attribute or PAIR[1])
    return CelebA(str(config.path), *pair, config.image_size, config.max_megapixels)


def _fits(below: Below) -> bool:
    return ATTRIBUTES in below.names


PART = Layout(
    title="CelebA",
    source="Liu et al. 2015 (Large-scale CelebFaces Attributes)",
    reads=f"{ATTRIBUTES}, {PARTITION} and the folder {IMAGES}",
    open=_open,
    fits=_fits,
    pair=PAIR,
)
