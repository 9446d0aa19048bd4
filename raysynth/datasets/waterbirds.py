"""waterbirds: Sagawa et al. 2020 (arXiv 1911.08731), in the layout they published.

`metadata.csv` has a row per image: `img_filename` (relative to the folder), `y` (0 landbird, 1
waterbird), `place` (0 land, 1 water), `split` (0 train, 1 validation, 2 test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import fsspec
import pandas as pd
import pyarrow as pa

from raysynth.datasets.files import read_files, require_files
from raysynth.errors import DataError
from raysynth.tables import SPLITS

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
        names = frame["img_filename"].astype(str).tolist()
        require_files(self.path, names, "metadata.csv", TREE)
        return pa.table(
            {
                "id": pa.array(names, pa.string()),
                "label": pa.array(frame["y"].astype(int), pa.int32()),
                "attribute": pa.array(frame["place"].astype(int), pa.int32()),
                "split": pa.array([SPLITS[int(number)] for number in frame["split"]], pa.string()),
            }
        )

    def images(self, rows: pa.Table) -> list[bytes | None]:
        """Encoded 8-bit RGB image of each row; None where the file cannot be read."""
        return read_files(self.path, rows["id"].to_pylist(), self.image_size)

    def _metadata(self) -> pd.DataFrame:
        filesystem, root = fsspec.core.url_to_fs(self.path)
        where = f"{self.path}/metadata.csv"
        if not filesystem.exists(f"{root}/metadata.csv"):
            raise DataError(f"dataset.path: no {where}; {TREE}")
        with filesystem.open(f"{root}/metadata.csv", "rb") as file:
            try:
                frame: pd.DataFrame = pd.read_csv(file)
            except ValueError as error:
                raise DataError(f"{where}: cannot be read as a table: {error}; {TREE}") from None
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise DataError(
                f"{where}: column(s) {', '.join(missing)} missing; got "
                f"{', '.join(map(str, frame.columns))}; {TREE}"
            )
        empty = frame.index[frame["img_filename"].isna()]
        if len(empty):
            raise DataError(
                f"{where}: img_filename is empty in row {empty[0] + 1}; expected a file; {TREE}"
            )
        for column, values in (("y", (0, 1)), ("place", (0, 1)), ("split", (0, 1, 2))):
            foreign = frame[column][~frame[column].isin(values)]
            if len(foreign):
                raise DataError(
                    f"{where}: {column} is {foreign.iloc[0]!r} in row {foreign.index[0] + 1}; "
                    f"expected {' or '.join(map(str, values))}; {TREE}"
                )
        return frame
