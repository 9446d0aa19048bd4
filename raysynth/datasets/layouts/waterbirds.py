"""waterbirds: Sagawa et al. 2020 (arXiv 1911.08731), in the layout they published.

`metadata.csv` has a row per image: `img_filename` (relative to the folder), `y` (0 landbird, 1
waterbird), `place` (0 land, 1 water), `split` (0 train, 1 validation, 2 test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import pyarrow as pa

from raysynth.datasets.files import clipped, require_files
from raysynth.datasets.layout import Below, Layout
from raysynth.datasets.metadata import read_metadata
from raysynth.datasets.pictures import MEGAPIXELS, Unreadable, read_files
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import DataError
from raysynth.storage.tables import SPLITS

COLUMNS = ("img_filename", "y", "split", "place")
TREE = """expected
  <dataset.path>/metadata.csv                          img_id,img_filename,y,split,place,...
  <dataset.path>/001.Black_footed_Albatross/<image>.jpg   as img_filename names them
Fix: dataset.path=<the unpacked waterbird_complete95_forest2water2 folder>"""


@dataclass(frozen=True)
class Waterbirds:
    """The folder of the published archive; `image_size` (pixels) makes all images squares."""

    path: str
    image_size: int | None = None
    megapixels: float = MEGAPIXELS

    label_names: ClassVar = ("landbird", "waterbird")
    attribute_names: ClassVar = ("land", "water")
    label_words: ClassVar = ("landbird", "waterbird")
    attribute_words: ClassVar = ("land", "water")
    aligned: ClassVar = ("land", "water")

    def listing(self) -> pa.Table:
        """`id` (= img_filename), `label, attribute: int32`, `split`; no image is opened.

        Raises
        ------
        DataError
            metadata.csv is missing or foreign, or names files that are not there.
        """
        frame = self._metadata()
        names = frame["img_filename"].tolist()
        require_files(self.path, names, "metadata.csv", TREE)
        return pa.table(
            {
                "id": pa.array(names, pa.string()),
                "label": pa.array(frame["y"].astype(int), pa.int32()),
                "attribute": pa.array(frame["place"].astype(int), pa.int32()),
                "split": pa.array([SPLITS[int(number)] for number in frame["split"]], pa.string()),
            }
        )

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded 8-bit RGB image of each row, or why the file cannot be read."""
        return read_files(self.path, rows["id"].to_pylist(), self.image_size, self.megapixels)

    def _metadata(self) -> pd.DataFrame:
        where = f"{self.path}/metadata.csv"
        frame = read_metadata(self.path, "metadata.csv", COLUMNS, TREE)
        if frame is None:
            raise DataError(f"dataset.path: no {where}; {TREE}")
        if frame.empty:
            raise DataError(f"{where}: no rows; {TREE}")
        empty = frame.index[frame["img_filename"].isna()]
        if len(empty):
            raise DataError(
                f"{where}: img_filename is empty in row {empty[0] + 1}; expected a file; {TREE}"
            )
        for column, values in (("y", (0, 1)), ("place", (0, 1)), ("split", (0, 1, 2))):
            numbers = pd.to_numeric(frame[column], errors="coerce")
            foreign = frame[column][~numbers.isin(values)]
            if len(foreign):
                raise DataError(
                    f"{where}: {column} is {clipped(foreign.iloc[0])} in row "
                    f"{foreign.index[0] + 1}; expected {' or '.join(map(str, values))}; {TREE}"
                )
            frame = frame.assign(**{column: numbers})
        return frame


def _open(config: DatasetConfig, seed: int) -> Waterbirds:
    return Waterbirds(str(config.path), config.image_size, config.max_megapixels)


def _fits(below: Below) -> bool:
    return "metadata.csv" in below.names and "img_filename" in below.head("metadata.csv")


PART = Layout(
    title="Waterbirds",
    source="Sagawa et al. 2020 (arXiv 1911.08731)",
    reads="waterbird_complete95_forest2water2: metadata.csv and the images it names",
    open=_open,
    fits=_fits,
)
