"""The knobs of `benchmark`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
)

from raysynth.knobs import NAME, Count, Place, Section

Severity = Annotated[float, Field(ge=0.5, lt=1.0)] | Literal["original"]


class BenchmarkConfig(Section):
    """`raysynth benchmark`: rows x severities x seeds; what cells have in common is done once."""

    rows: dict[Annotated[str, Field(pattern=NAME)], dict[str, Any]] = Field(
        default_factory=dict,
        description="Row name -> the settings in which it differs, as `section.key: value`.",
    )
    baseline: str = Field(
        "",
        description="Row that the others are compared to seed by seed, beside the best reference "
        "and control; empty: none.",
    )
    by_validation: dict[
        Annotated[str, Field(pattern=NAME)], Annotated[tuple[str, ...], Field(min_length=2)]
    ] = Field(
        default_factory=dict,
        description="Name -> rows: one more row of the table, which is at each severity and seed "
        "the one of these of the best validation WGA. Nothing is trained for it.",
    )
    severities: tuple[Severity, ...] = Field(
        (), description="Severities of every row; none: `dataset.severity`."
    )
    only_at: dict[
        Annotated[str, Field(pattern=NAME)], Annotated[tuple[Severity, ...], Field(min_length=1)]
    ] = Field(
        default_factory=dict,
        description="Row name -> those of `severities` that it is run at; others: at every one.",
    )
    seeds: Count = Field(5, description="Run seeds of every cell: `seed`, `seed` + 1, ...")
    concurrent: Count = Field(
        1, description="Cells at once; each asks for the workers of `resources`."
    )
    records: tuple[Place, ...] = Field(
        (),
        description="Files or URIs of records.csv that earlier parts of the benchmark left, here "
        "or on other machines: their cells are in the table and are not run again, "
        "nor are their references for other rows.",
    )
