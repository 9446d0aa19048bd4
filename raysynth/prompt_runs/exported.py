"""The last stage, where it is asked for: the images in a form of `publish`, besides Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raysynth.groups.groups import Groups
from raysynth.prompt_runs.adapters import find_adapters
from raysynth.prompt_runs.card import write_card
from raysynth.prompt_runs.images import rows_of
from raysynth.prompt_runs.prompts import read_prompts
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.publish.form import FORMS
from raysynth.publish.images import NOTES, Target, notes_among, write_pieces
from raysynth.publish.rows import ORIGIN, Source
from raysynth.stages.stage import Work
from raysynth.storage.files import remove, sizes_below
from raysynth.synthesis.shards import read_shard, shard_records


@dataclass(frozen=True)
class Shards:
    """The images of a run, a shard at a time (`publish.images.Pieces`)."""

    folder: str
    """Folder or URI of the synthetic table."""
    groups: Groups

    @property
    def sources(self) -> list[Source]:
        """The shards; all images are of one split."""
        records = shard_records(self.folder)
        return [Source("train", f"{self.folder}/{each.file}", each) for each in records]

    def read(self, source: Source) -> pa.Table:
        """The rows of a shard."""
        assert source.shard is not None, "of the synthetic table"
        rows = read_shard(self.folder, source.shard)
        return rows.append_column(ORIGIN, pa.repeat(pa.scalar(True), rows.num_rows))


def build(work: Work) -> dict[str, Any]:
    """Write the form's files, then the card; facts: rows."""
    config, images = work.config, work.inputs["synthesis"]
    assert isinstance(config, GenerateConfig)
    target = Target(work.folder, FORMS[config.export], notes_among(sizes_below(work.folder)))
    prompts = read_prompts(config)
    rows = rows_of(config, prompts, find_adapters(prompts.paths, numbers=False))
    write_pieces(target, Shards(images.path, rows.groups), work.progress)
    write_card(config, rows, images.facts, work.folder, config.export)
    remove(f"{work.folder}/{NOTES}")
    return {"rows": images.facts["rows"]}
