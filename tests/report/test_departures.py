"""What the page says is not the default."""

from __future__ import annotations

import pytest

from raysynth.config.files import load_config
from raysynth.report.departures import departures


def test_nothing_is_told_of_a_run_of_defaults():
    assert not list(departures(load_config(None, ["name=other", "seed=3"])))


def test_a_default_that_was_written_out_is_none():
    assert not list(
        departures(load_config(None, ["synthesis.schedule=even", "finetune.experts=1"]))
    )


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("finetune.experts", "3", []),
        ("dataset.severity", "0.95", []),
        ("generator", "shared", ["One model for all groups"]),
        ("synthesis.schedule", "{name: karras, rho: 5.0}", ["Karras"]),
        ("synthesis.scorers", "[clip, copies, diffusion_classifier]", ["Diffusion Classifier"]),
        ("grouping.method", "conflict_mining", ["Conflict mining"]),
    ],
)
def test_what_was_given_is_told_with_whose_it_is(key, value, parts):
    (found,) = departures(load_config(None, [f"{key}={value}"]))
    assert (found.key, found.value) == (key, value) and found.meaning
    assert [title for title, _ in found.parts] == parts and all(found for _, found in found.parts)


def test_terms_are_told_with_their_own_knobs():
    told = departures(
        load_config(None, ["generator=shared", "finetune.terms=[{name: cbdm, tau: 2}]"])
    )
    generator, terms = told
    assert (generator.key, terms.value) == ("generator", "[{name: cbdm, tau: 2.0}]")
    assert "Qin" in terms.parts[0][1]
