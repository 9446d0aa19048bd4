"""folder: images and `metadata.csv` or `metadata.parquet` (the Hugging Face ImageFolder layout).

Columns: `file_name` (relative to the folder), `label`, `attribute`, and optionally `split`. Where
`dataset.attributes` is `unknown`, `attribute` may be missing, or empty in some rows. A column of
captions is named by `dataset.captions`.
"""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from raysynth.datasets.captions import CAPTION
from raysynth.datasets.files import below, open_folder, require_files
from raysynth.datasets.layout import Below, Layout
from raysynth.datasets.metadata import read_metadata
from raysynth.datasets.rows import OwnImages, checked, listing_of
from raysynth.datasets.settings import COLUMN
from raysynth.errors import DataError

METADATA = ("metadata.csv", "metadata.parquet")
EXPECTED_TREE = """expected
  <dataset.path>/metadata.csv      file_name,label,attribute[,split]
  <dataset.path>/images/0001.jpg   any sub-folders, named in file_name"""


class Folder(OwnImages):
    """A folder or URI of images with their metadata."""

    def listing(self) -> pa.Table:
        """`id` (= file_name), `label, attribute: int32`, `split`; no image is opened.

        An attribute that is not known is -1; 0 where none of any image is.

        Raises
        ------
        DataError
            The metadata is missing, lacks a column, has empty or doubled entries, names files that
            are not there or that lie outside the folder.
        """
        names = below(self.path, self.rows["file_name"])
        require_files(self.path, names, "the metadata", EXPECTED_TREE)
        return listing_of(self.rows, names, self)

    def read(self) -> pd.DataFrame:
        """The metadata; raises DataError where there is none that can be used."""
        filesystem, root = open_folder(self.path)
        if not filesystem.isdir(root):
            raise DataError(f"dataset.path: {self.path} is not a folder; {EXPECTED_TREE}")
        optional = ("split",) if self.attributes else ("split", "attribute")
        told = (self.captions,) if self.captions else ()
        for name in METADATA:
            needed = (*self.required, *told)
            frame = read_metadata(self.path, name, needed, EXPECTED_TREE, optional)
            if frame is not None:
                frame = frame.rename(columns=dict.fromkeys(told, CAPTION))
                if "attribute" not in frame:
                    frame = frame.assign(attribute=None)
                return checked(frame, f"{self.path}/{name}", self.required, EXPECTED_TREE)
        raise DataError(
            f"dataset.path: no metadata.csv or metadata.parquet in {self.path}; {EXPECTED_TREE}\n"
            "Fix: write it; or, where folders are the names (<label>/<attribute>/0001.jpg), "
            "dataset.name=tree"
        )


def _fits(below: Below) -> bool:
    named = [name for name in METADATA if name in below.names]
    return bool(named) and (named[0].endswith(".parquet") or "file_name" in below.head(named[0]))


PART = Layout(
    title="Own images",
    source="Hugging Face's ImageFolder layout",
    reads="images, and metadata.csv or .parquet: file_name, label, attribute[, split]",
    open=Folder.of,
    is_anybodys=True,
    names_masks=True,
    captions=COLUMN,
    fits=_fits,
)
