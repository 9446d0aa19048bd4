"""One run of `raysynth generate`, and what it leaves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysynth.errors import ConfigError
from raysynth.pipeline import run_course
from raysynth.progress import USUAL, Progress
from raysynth.prompt_runs.course import GENERATE
from raysynth.prompt_runs.settings import NOTHING, GenerateConfig
from raysynth.terminal import clipped, masked, shown

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image


@dataclass(frozen=True)
class Generated:
    """The images of a run."""

    root: str
    """The run's folder or URI."""
    folder: str
    """Where they lie as Parquet."""
    export: str
    """Where they lie in the form that was asked for; "": nowhere."""
    count: int

    @property
    def table(self) -> pd.DataFrame:
        """A row per image: id, adapter, prompt, seed, scores; no pixels."""
        from raysynth.storage.tables import IMAGE_COLUMN, schema_of
        from raysynth.synthesis.shards import read_shards, shard_files

        names = schema_of(shard_files(self.folder)[0]).names
        left = (IMAGE_COLUMN, "label", "attribute", "group", "split", "cluster", "source")
        return read_shards(self.folder, [n for n in names if n not in left]).to_pandas()

    def images(self, ids: Sequence[str]) -> list[Image.Image]:
        """Pictures by id, in the order asked; raises ConfigError where one is not there."""
        import pyarrow as pa
        from PIL import Image

        from raysynth.storage.tables import STORED, read_parts
        from raysynth.synthesis.shards import shard_files

        parts = read_parts(
            self.folder, ["id", "image"], shard_files(self.folder), pa.array(list(ids), pa.string())
        )
        found = {row["id"]: row["image"]["bytes"] for part in parts for row in part.to_pylist()}
        if gone := [each for each in ids if each not in found]:
            raise ConfigError(
                f"{masked(self.folder)}: no image {clipped(shown(gone[0]))!r}. Fix: ids of `table`"
            )
        return [Image.open(io.BytesIO(found[each]), formats=STORED) for each in ids]

    @property
    def said(self) -> str:
        """A line for the terminal."""
        also = f", and {masked(self.export)}" if self.export else ""
        return f"{self.count:,} image{'s' * (self.count != 1)}: {masked(self.folder)}{also}"


def run_generate(
    config: GenerateConfig, progress: Progress | None = None, loudness: int = USUAL
) -> Generated:
    """Draw what is not there yet; parameters and errors as `pipeline.run_pipeline`."""
    finished = run_course(GENERATE, config, progress=progress or Progress(loudness=loudness))
    record = finished.manifest()["stages"]["synthesis"]
    export = finished.folder("export") if config.export != NOTHING else ""
    return Generated(config.root, finished.folder("synthesis"), export, record["rows"])
