"""utkface: Zhang et al. 2017 (UTKFace), whose file names are its metadata.

`[age]_[gender]_[race]_[date&time].jpg` with gender 0 male, 1 female and race 0 to 4. Label and
attribute are any two of gender, age and race. Age follows FFR (arXiv 2308.04553): up to 5 years is
young, 20 to 50 is old, and other ages are left out. There are no published splits: every group is
divided 80/10/10 from the seed, as FFR does.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysynth.datasets.contents import walk
from raysynth.datasets.files import (
    LEFT_OUT,
    clipped,
    deal_splits,
    is_inside,
    open_folder,
    require_files,
    require_two,
    some,
)
from raysynth.datasets.layout import Below, Layout
from raysynth.datasets.pictures import MEGAPIXELS, Unreadable, read_files
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import ConfigError, DataError

NAME = re.compile(
    r"^(\d{1,3})_([01])_([0-4])(?:_(.*?))?[ .]*(?:j?pg)?(?P<chip>\.chip)?\.(?:jpe?g|png)$",
    re.IGNORECASE,
)
"""Age, gender, race, time; some published names end in `.pg.chip.jpg` or ` .jpg.chip.jpg`."""
SUFFIXES = (".jpg", ".jpeg", ".png")
YOUNG = 5
"""Most years of the young (FFR)."""
OLD = (20, 50)
"""Years of the old (FFR)."""
TRAITS = {
    "gender": ("male", "female"),
    "age": ("old", "young"),
    "race": ("white", "black", "asian", "indian", "others"),
}
PAIR = ("gender", "age")
"""Label and attribute, unless others are asked for."""
WORDS = {
    "gender": ("man", "woman"),
    "age": ("in their thirties", "four years old"),
    "race": ("white", "black", "asian", "indian", "other"),
}
SHARE = 0.1
"""Of each group, for validation and again for test."""
TREE = """expected
  <dataset.path>/26_0_2_20170104023102422.jpg.chip.jpg   age_gender_race_time, in any sub-folders
Fix: dataset.path=<folder of the unpacked UTKFace images>"""

Named = tuple[str, re.Match[str]]
"""A file and what its name says."""


@dataclass(frozen=True)
class UTKFace:
    """A folder of UTKFace images; `label` and `attribute`: two of gender, age and race."""

    path: str
    label: str = PAIR[0]
    attribute: str = PAIR[1]
    image_size: int | None = None
    seed: int = 0
    megapixels: float = MEGAPIXELS

    @property
    def label_names(self) -> tuple[str, ...]:
        """Values of the label."""
        return TRAITS[self.label]

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Values of the attribute."""
        return TRAITS[self.attribute]

    @property
    def label_words(self) -> tuple[str, ...]:
        """How prompts speak of them."""
        return WORDS[self.label]

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """How prompts speak of them."""
        return WORDS[self.attribute]

    @property
    def aligned(self) -> tuple[str, ...]:
        """FFR's for gender x age: men young, women old; none for other pairs."""
        return ("young", "old") if (self.label, self.attribute) == PAIR else ()

    def __post_init__(self) -> None:
        """Raises ConfigError when the pair is not two of gender, age and race."""
        for key, trait in (("label", self.label), ("attribute", self.attribute)):
            if trait not in TRAITS:
                raise ConfigError(
                    f"dataset.{key}: got {clipped(trait)!r}; expected one of {', '.join(TRAITS)} "
                    "for utkface"
                )
        require_two(self.label, self.attribute)

    def listing(self) -> pa.Table:
        """`id` (= path in the folder), `label, attribute: int32`, `split`; no image is opened.

        Of files of one name (a copy in another sub-folder, a face's photograph beside its chip) one
        is kept. Names without age, gender and race (some published ones lack the race) and other
        ages are left out. The schema's metadata says how many (`LEFT_OUT`). Raises DataError when
        nothing is left.
        """
        names = self._names()
        found, doubles = _one_each([(name, m) for name in names if (m := _match(name))])
        if not found:
            example = f", e.g. {clipped(names[0])}" if names else ""
            raise DataError(
                f"dataset.path: none of {len(names)} files in {self.path} has a UTKFace name"
                f"{example}; {TREE}"
            )
        age, gender, race = (np.array([int(m[k]) for _, m in found]) for k in (1, 2, 3))
        value = {"gender": gender, "age": _age(age), "race": race}
        label, attribute = value[self.label], value[self.attribute]
        kept = np.flatnonzero((label >= 0) & (attribute >= 0))
        if not len(kept):
            raise DataError(
                f"dataset.path: no image in {self.path} is of an age up to {YOUNG}, or from "
                f"{OLD[0]} to {OLD[1]} (FFR's rule). Fix: add such images, or choose a pair "
                "without age"
            )
        chosen = [found[row][0] for row in kept]
        require_files(self.path, chosen, "the folder", TREE)
        group = label[kept] * len(self.attribute_names) + attribute[kept]
        table = pa.table(
            {
                "id": pa.array(chosen, pa.string()),
                "label": pa.array(label[kept], pa.int32()),
                "attribute": pa.array(attribute[kept], pa.int32()),
                "split": pa.array(deal_splits(group, SHARE, SHARE, self.seed), pa.string()),
            }
        )
        return _with_left_out(table, names, doubles, len(found) - len(kept))

    def _names(self) -> list[str]:
        """All files, relative to the folder."""
        filesystem, root = open_folder(self.path)
        if not filesystem.isdir(root):
            raise DataError(f"dataset.path: {self.path} is not a folder; {TREE}")
        if not filesystem.is_disk:
            return sorted(path.removeprefix(root).lstrip("/") for path in filesystem.find(root))
        found, real = list(walk(root)), os.path.realpath(root)
        linked = [name for name, path, facts in found if not facts and os.path.isdir(path)]
        if away := [name for name in linked if not is_inside(f"{root}/{name}", real)]:
            raise DataError(
                f"dataset.path: {some(away)} in {self.path} is a link to a folder outside it. "
                "Fix: copy that folder here, or dataset.path=<the folder itself>"
            )
        return sorted(name for name, _, _ in found)

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded 8-bit RGB image of each row, or why the file cannot be read."""
        return read_files(self.path, rows["id"].to_pylist(), self.image_size, self.megapixels)


def _age(years: np.ndarray) -> np.ndarray:
    """0 old, 1 young, -1 neither."""
    old = (years >= OLD[0]) & (years <= OLD[1])
    return np.where(years <= YOUNG, 1, np.where(old, 0, -1))


def _match(name: str) -> re.Match[str] | None:
    return NAME.match(posixpath.basename(name))


def _one_each(found: list[Named]) -> tuple[list[Named], list[str]]:
    """One file of each face, a chip before a whole photograph, and the names of the others."""
    one: dict[tuple[str | None, ...], Named] = {}
    for name, m in sorted(found, key=lambda named: (not named[1]["chip"], named[0])):
        one.setdefault(m.group(1, 2, 3, 4), (name, m))
    kept = sorted(one.values(), key=lambda named: named[0])
    names = {name for name, _ in kept}
    return kept, [name for name, _ in found if name not in names]


def _with_left_out(table: pa.Table, names: list[str], doubles: list[str], ages: int) -> pa.Table:
    """The listing, with a sentence on the images that it leaves out, if any, in its metadata."""
    unread = [name for name in names if name.lower().endswith(SUFFIXES) and not _match(name)]
    counts = (
        (len(unread), f"whose name gives no age, gender and race ({some(unread)})"),
        (len(doubles), f"of the same name as one that is kept ({some(doubles)})"),
        (ages, f"of ages from {YOUNG + 1} to {OLD[0] - 1} or above {OLD[1]}"),
    )
    said = "; ".join(f"{count:,} {why}" for count, why in counts if count)
    return table.replace_schema_metadata({LEFT_OUT: f"left out: {said}"} if said else None)


def _open(config: DatasetConfig, seed: int) -> UTKFace:
    pair = (config.label or PAIR[0], config.attribute or PAIR[1])
    return UTKFace(str(config.path), *pair, config.image_size, seed, config.max_megapixels)


def _fits(below: Below) -> bool:
    images = [name for name in below.names if name.lower().endswith(SUFFIXES)]
    return bool(images) and 2 * sum(_match(name) is not None for name in images) > len(images)


PART = Layout(
    title="UTKFace",
    source="Zhang et al. 2017; ages and splits as FFR (arXiv 2308.04553)",
    reads="images named age_gender_race_time.jpg, in any sub-folders",
    open=_open,
    fits=_fits,
    pair=PAIR,
)
