"""The synthetic table's columns: a candidate's own, then those that its scorers declare."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from raysynth.errors import ConfigError
from raysynth.scoring.scorer import SCORERS, USUAL
from raysynth.storage.tables import CANDIDATE


def scores_of(scorers: Sequence[str]) -> pa.Schema:
    """The columns of these scorers, in their order.

    Raises
    ------
    ConfigError
        Two declare one column, or one that candidates have.
    """
    fields: dict[str, pa.Field] = {}
    for name in scorers:
        for field in SCORERS[name].columns:
            if field.name in fields or field.name in CANDIDATE.names:
                raise ConfigError(
                    f"synthesis.scorers: {name} declares the column {field.name!r}, which is there "
                    "already; expected every column once. Fix: name each scorer once"
                )
            fields[field.name] = field
    return pa.schema(list(fields.values()))


def synthetic_schema(scorers: Sequence[str]) -> pa.Schema:
    """All columns of the synthetic table; raises ConfigError as `scores_of`."""
    return pa.schema([*CANDIDATE, *scores_of(scorers)])


SYNTHETIC = synthetic_schema(USUAL)
"""The table of the usual scorers."""
