"""What one kind of data set is: the words of its configuration, and the reader of its images.

A file of `layouts` each; another package adds one by an entry point of the group
`raysynth.datasets.layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from raysynth.datasets.settings import LAYOUTS, DatasetConfig

if TYPE_CHECKING:  # reading the default configuration waits for no Arrow
    import pyarrow as pa

    from raysynth.datasets.pictures import Unreadable


class Dataset(Protocol):
    """A data set: names and words of its groups, a cheap listing, and its images by row."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label values, in order."""

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attribute values, in order."""

    @property
    def label_words(self) -> tuple[str, ...]:
        """How prompts speak of the labels."""

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """How prompts speak of the attributes."""

    @property
    def aligned(self) -> tuple[str, ...]:
        """Name of the attribute that each label goes with; none: the largest group's."""

    def listing(self) -> pa.Table:
        """`id, label, attribute, split` and what the data set needs to make the images."""

    def images(self, rows: pa.Table) -> Sequence[bytes | Unreadable]:
        """Encoded image of each row, or why a file cannot be read."""


@dataclass(frozen=True)
class Below:
    """What lies below a folder, for `Layout.fits`."""

    names: Sequence[str]
    """Of all files, relative to it."""
    head: Callable[[str], str]
    """Name -> the file's first line."""


def fits_nothing(below: Below) -> bool:
    """It is in no folder that could be looked at."""
    return False


def no_refusal(config: DatasetConfig) -> None:
    """Any configuration can be read."""


def no_garments(config: DatasetConfig) -> tuple[str, ...]:
    """The embedded models know nothing of these images."""
    return ()


@dataclass(frozen=True)
class Layout:
    """One value of `dataset.name`.

    Parameters
    ----------
    title, source : what it is called, and who made it.
    reads : what is expected below `dataset.path`, in words.
    open : the data set of a configuration and a seed; raises ConfigError or DataError.
    check : raises ValueError for a configuration that it cannot be; nothing is read.
    pair : names of label and attribute unless `dataset.label` and `dataset.attribute` choose
        others; none: it has one of each.
    severity : what `dataset.severity` is unless it is given.
    has_files : its images are the files below `dataset.path`, whose content makes it another one.
    is_anybodys : it says how images lie, not which: a data set is called by its folder.
    is_composed : its listing is made at the severity; of others, rows are left out.
    names_masks : its metadata may say what is missing of its images (`damage`).
    captions : what `dataset.captions` names of it, `settings.COLUMN` or `TEXTS`; "": it has none.
    side : of its images, pixels, where all are of one; None: `dataset.image_size`, or the files'.
    fits : whether a folder looks like one of its own, by names and first lines alone.
    garments : those of the embedded models' ten that its labels are; none: they are strange to it.
    """

    title: str
    source: str
    reads: str
    open: Callable[[DatasetConfig, int], Dataset]
    check: Callable[[DatasetConfig], None] = no_refusal
    pair: tuple[str, str] | None = None
    severity: float | str = "original"
    has_files: bool = True
    is_anybodys: bool = False
    is_composed: bool = False
    names_masks: bool = False
    captions: str = ""
    side: int | None = None
    fits: Callable[[Below], bool] = fits_nothing
    garments: Callable[[DatasetConfig], tuple[str, ...]] = no_garments


def layout_of(config: DatasetConfig) -> Layout:
    """What `dataset.name` stands for; its file is imported."""
    layout: Layout = LAYOUTS[config.name]
    return layout
