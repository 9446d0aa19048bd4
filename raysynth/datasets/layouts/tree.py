"""tree: images in folders that say what they show, `<label>/<attribute>/0001.jpg`.

Above them there may be a folder for each split (`train/waterbird/land/0001.jpg`). Where
`dataset.attributes` is `unknown`, folders of labels alone will do (`waterbird/0001.jpg`). With
`dataset.captions=txt` the text beside an image (`0001.txt`) is its caption.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import pandas as pd
import pyarrow as pa

from raysynth.datasets.captions import CAPTION, texts_beside
from raysynth.datasets.files import is_inside, open_folder, require_files, some
from raysynth.datasets.layout import Below, Layout
from raysynth.datasets.rows import SPLIT_NAMES, OwnImages, checked, listing_of
from raysynth.datasets.settings import TEXTS
from raysynth.errors import DataError

SUFFIXES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "gif", "bmp", "avif")
"""Ends of names that are taken for images; other files are passed over."""
EXPECTED_TREE = """expected
  <dataset.path>/<label>/<attribute>/0001.jpg           e.g. waterbird/land/0001.jpg
  <dataset.path>/train/<label>/<attribute>/0001.jpg     with train, validation and test, if split"""
LABELS_ALONE = """expected
  <dataset.path>/<label>/0001.jpg, or below train, validation and test"""


class Tree(OwnImages):
    """A folder or URI of images in folders."""

    def listing(self) -> pa.Table:
        """`id` (= path below the folder), `label, attribute: int32`, `split`; no image is opened.

        Raises
        ------
        DataError
            Images that lie elsewhere than the tree says, a link to a folder that leaves it or goes
            round in a circle.
        """
        names = self.rows["file_name"].tolist()
        require_files(self.path, names, "the folder", self._expected)
        return listing_of(self.rows, names, self)

    @property
    def _expected(self) -> str:
        return EXPECTED_TREE if self.attributes else f"{EXPECTED_TREE}\nor {LABELS_ALONE}"

    def read(self) -> pd.DataFrame:
        """What the images' folders say."""
        filesystem, root = open_folder(self.path)
        if not filesystem.isdir(root):
            raise DataError(f"dataset.path: {self.path} is not a folder; {self._expected}")
        if filesystem.is_disk:
            found = files_below(root)
        else:
            found = (name.removeprefix(root).lstrip("/") for name in filesystem.find(root))
        files = sorted(found)
        names = [name for name in files if is_image(name)]
        if not names:
            raise DataError(
                f"dataset.path: no image in {self.path} (*.{', *.'.join(SUFFIXES)}); "
                f"{self._expected}"
            )
        frame = self._frame(names)
        if self.captions:
            said = texts_beside(self.path, names, [name for name in files if not is_image(name)])
            frame = frame.assign(**{CAPTION: [said.get(name, "") for name in names]})
        return checked(frame, self.path, self.required, self._expected)

    def _frame(self, names: list[str]) -> pd.DataFrame:
        folders = [name.split("/")[:-1] for name in names]
        split = has_splits(names)
        deep = 2 + split
        if not self.attributes and not any(len(each) >= deep for each in folders):
            deep -= 1
        if wrong := [n for n, each in zip(names, folders, strict=True) if len(each) != deep]:
            shown = f"{'<split>/' * split}<label>{'/<attribute>' * (deep - split > 1)}"
            fix = "move them, or name them in a metadata.csv (dataset.name=folder)"
            if self.attributes and deep - split > 1 and len(wrong) == len(names):
                fix += "; or dataset.attributes=unknown, where folders are labels alone"
            raise DataError(
                f"dataset.path: {self.path}: {some(wrong)}: not in a folder {shown}; "
                f"{self._expected}\nFix: {fix}"
            )
        columns = ["split"] * split + ["label", "attribute"][: deep - split]
        frame = pd.DataFrame(folders, columns=columns, dtype=object).assign(file_name=names)
        return frame if "attribute" in frame else frame.assign(attribute=None)


def is_image(name: str) -> bool:
    """Whether a file's name is an image's; what is hidden (`._x.jpg`, `.thumbnails/`) is none."""
    plain = not any(part.startswith(".") for part in name.split("/"))
    return plain and name.lower().rpartition(".")[2] in SUFFIXES


def has_splits(names: Iterable[str]) -> bool:
    """Whether the folders at the top are splits, and more than one."""
    tops = {name.partition("/")[0].lower() for name in names}
    return len(tops) > 1 and tops <= set(SPLIT_NAMES)


def files_below(root: str) -> Iterator[str]:
    """Names of all files below a local folder; links to folders inside it are entered.

    Raises
    ------
    DataError
        A link to a folder outside, where a worker or another's tool would not look; or one to a
        folder that it lies in itself, where there is no end.
    """
    real = os.path.realpath(root)
    above: dict[str, tuple[str, ...]] = {root: (real,)}
    for folder, folders, files in os.walk(root, followlinks=True):
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        yield from (name if inner == "." else f"{inner}/{name}" for name in files)
        for name in folders:
            path = f"{folder}/{name}"
            target = os.path.realpath(path)
            if os.path.islink(path):
                _check_link(root, path, target, above[folder])
            above[path] = (*above[folder], target)


def _check_link(root: str, path: str, target: str, above: tuple[str, ...]) -> None:
    named = f"{os.path.relpath(path, root)} -> {target}"
    if not is_inside(path, above[0]):
        raise DataError(
            f"dataset.path: {root}: {named} is a link to a folder outside it. Fix: copy that "
            f"folder here (cp -rL {root} COPY copies all links), or dataset.path=<the folder "
            "itself>"
        )
    if target in above:
        raise DataError(
            f"dataset.path: {root}: {named} is a link to a folder that it lies in: a circle. Fix: "
            "remove the link"
        )


def _fits(below: Below) -> bool:
    return any(is_image(name) and "/" in name for name in below.names)


PART = Layout(
    title="A tree of folders",
    source="torchvision's and Hugging Face's ImageFolder, one level deeper",
    reads="images in folders <label>/<attribute>, below folders train, validation, test if split",
    open=Tree.of,
    is_anybodys=True,
    captions=TEXTS,
    fits=_fits,
)
