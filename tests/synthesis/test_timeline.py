"""Spans and what is said of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raysynth.synthesis.timeline import (
    SPAN,
    Stopwatch,
    in_words,
    over_time,
    spans_of,
    thinned,
    utilisation,
)


def spans(rows: list[tuple[str, str, float, float]]) -> pa.Table:
    names = ("actor", "part", "start", "end")
    return pa.Table.from_pylist(
        [{**dict(zip(names, row, strict=True)), "images": 8} for row in rows], SPAN
    )


TABLE = spans(
    [
        ("a", "unet", 10, 13),
        ("a", "decode", 13, 13.5),
        ("b", "unet", 11, 13),
        ("b", "score", 13, 14),
        ("task", "encode", 14, 15.5),
    ]
)


def test_busy_is_held_time_over_all_actors_time():
    facts = utilisation(TABLE)
    assert facts["actors"] == 2, "the encoding task is no actor"
    assert facts["seconds"] == 4.0
    assert facts["busy"] == pytest.approx(6.5 / 8, abs=1e-4)
    assert facts["unet"] == pytest.approx(5 / 8)
    assert facts["parts"] == {"unet": 0.625, "decode": 0.0625, "score": 0.125, "encode": 0.1875}
    assert in_words(facts).startswith("actors busy 81 %: UNet 62 %, decode 6 %")


def test_over_time_adds_up_to_busy():
    edges, shares = over_time(TABLE, 4)
    assert edges.tolist() == [0, 1, 2, 3, 4]
    assert shares["unet"].tolist() == [0.5, 1, 1, 0]
    assert np.mean(sum(shares.values())) == pytest.approx(6.5 / 8)


def test_nothing_was_generated():
    assert utilisation(SPAN.empty_table())["busy"] == 0


def test_spans_travel_in_the_first_row_of_a_batch():
    batch = Stopwatch("a", 3)
    for part in ("unet", "decode"):
        with batch.part(part):
            pass
    column = batch.column()
    assert [len(row or ()) for row in column.to_pylist()] == [2, 0, 0]
    table = spans_of(pa.chunked_array([column, pa.nulls(2, column.type)]))
    assert table["part"].to_pylist() == ["unet", "decode"]
    assert table["images"].to_pylist() == [3, 3]
    assert spans_of(pa.chunked_array([pa.nulls(2, column.type)])).num_rows == 0


def test_a_long_timeline_keeps_its_sums_in_fewer_spans():
    rows = [(f"a{n % 3}", "unet", n / 10, n / 10 + 0.08) for n in range(3000)]
    whole = spans(rows)
    short = thinned(whole, 200)
    assert 50 < short.num_rows <= 200 and short.schema == SPAN
    assert pc.sum(short["images"]) == pc.sum(whole["images"])
    told, kept = utilisation(whole), utilisation(short)
    assert kept["actors"] == 3 and kept["seconds"] == pytest.approx(told["seconds"], rel=0.05)
    assert kept["busy"] == pytest.approx(told["busy"], rel=0.05)
    assert thinned(TABLE, 5).equals(TABLE)
    assert thinned(whole, 1).num_rows >= 3, "one for each actor and part at least"
