"""given: every image keeps the attribute that the data set gives it; no stage is run for it."""

from __future__ import annotations

import pyarrow as pa

from raysynth.grouping.method import Grouped, Method, Ungrouped
from raysynth.knobs import Section


def _group(images: Ungrouped, knobs: Section) -> Grouped:
    rows = pa.concat_tables(images.parts("id", "attribute"), promote_options="permissive")
    return Grouped(images.groups.attribute_names, images.groups.attribute_words, rows)


PART = Method(
    title="Given attributes",
    source="the data set",
    group=_group,
)
