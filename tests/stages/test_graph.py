"""Digests: a knob that nobody thought of moves them, and the graph says what builds on what."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import create_model

from raysynth.config.files import load_config
from raysynth.knobs import Section, decides, knob
from raysynth.method import METHOD, nodes_of
from raysynth.stages.graph import graph, no_contents
from raysynth.stages.stage import Stage

ALL = ("ingest", "clustering", "finetune", "synthesis", "selection", "references", "search")
DRAWN = ("finetune", "synthesis", "selection", "fidelity", "search")
LATER = ("classification", "report")
OF = {
    "dataset": (*ALL, "fidelity", *LATER),
    "base": (*DRAWN, *LATER),
    "prompts": (*DRAWN, *LATER),
    "clustering": ("clustering", *DRAWN, *LATER),
    "finetune": (*DRAWN, *LATER),
    "synthesis": (*DRAWN[1:], *LATER),
    "selection": (*DRAWN[2:], *LATER),
    "fidelity": ("fidelity", "report"),
    "classifier": ("references", "search", *LATER),
    "references": ("references", *LATER),
    "search": ("search", *LATER),
}
"""Section -> stages that a knob of it decides, of itself or through what they read."""
NOWHERE = ("resources", "benchmark", "report", "grouping", "audit", "pretraining")
"""Sections that say where and how often a run is made, and how much its page shows; those whose
stage is not in every run; that of the base which a run may begin with."""


def with_knob(name: str, value: int, *overrides: str, **said: Any) -> Any:
    """The configuration with one knob more in a section, which no code knows."""
    config = load_config(None, overrides)
    section = getattr(config, name)
    kind = create_model(
        f"More{name}", __base__=type(section), another=(int, knob(0, "Nobody knows.", **said))
    )
    more = kind.model_construct(section.model_fields_set, **dict(section), another=value)
    return config.model_copy(update={name: more})


def digests(config: Any) -> dict[str, str]:
    return {node.name: node.digest for node in nodes_of(config)}


@pytest.mark.parametrize("name", OF)
@pytest.mark.parametrize("generator", ["clustered_dreambooth", "edit"])
def test_a_knob_that_nobody_thought_of_makes_anew_what_it_may_change(name, generator):
    one, other = (digests(with_knob(name, v, f"generator={generator}")) for v in (0, 1))
    moved = {stage for stage in one if one[stage] != other[stage]}
    assert moved == set(OF[name])


def test_the_gates_choice_decides_what_reads_its_verdict_alone():
    stop, go_on, real_only = (
        digests(load_config(None, [f"selection.on_unfaithful={choice}"]))
        for choice in ("stop", "go_on", "real_only")
    )
    assert stop == go_on
    moved = {stage for stage in stop if stop[stage] != real_only[stage]}
    assert moved == {"search", *LATER}


def test_every_section_is_spoken_of():
    sections = {k for k, value in load_config() if isinstance(value, Section)}
    assert sections - set(NOWHERE) == set(OF)


@pytest.mark.parametrize("name", OF)
def test_a_knob_of_width_and_one_at_its_neutral_value_move_nothing(name):
    plain = digests(load_config())
    assert digests(with_knob(name, 1, width=True)) == plain
    assert digests(with_knob(name, 7, neutral=7)) == plain != digests(with_knob(name, 8, neutral=7))


def test_a_default_that_moves_renames_what_is_made():
    class Old(Section):
        one: int = knob(3, "A number.", neutral=1)

    assert decides(Old()) == {"one": 3} and decides(Old(one=1)) == {}


def stage(name: str, *reads: str, **more: Any) -> Stage:
    return Stage(name, name, "nowhere:nothing", reads, **more)


def names(stages: tuple[Stage, ...], variants: dict[str, Any]) -> dict[str, list[str]]:
    nodes = graph(stages, None, variants, no_contents)
    return {node.name: sorted(each.name for each in node.upstream.values()) for node in nodes}


def test_what_is_there_once_per_generator_is_read_of_the_same_one():
    found = names(
        (
            stage("data"),
            stage("model", "data", per_generator=True),
            stage("images", "model", per_generator=True),
            stage("choice", "images/*", "data"),
            stage("end", "choice"),
        ),
        {"a": None, "b": None},
    )
    assert found["images/a"] == ["data", "model/a"]
    every = ["data", "images/a", "images/b", "model/a", "model/b"]
    assert found["choice"] == every and found["end"] == sorted([*every, "choice"])


def test_a_stage_may_stand_for_an_earlier_one():
    stages = (stage("data"), stage("better", "data", stands_for="data"), stage("end", "data"))
    found = {node.name: node for node in graph(stages, None, {"": None}, no_contents)}
    assert found["end"].upstream["data"] is found["better"]
    without = (stages[0], stage("better", "data", where=lambda config: False), stages[2])
    assert list(names(without, {"": None})) == ["data", "end"]


def test_the_method_of_several_generators_has_a_choice():
    plain = [node.name for node in nodes_of(load_config())]
    several = [node.name for node in nodes_of(load_config(None, ["generator=auto"]))]
    everything = list(dict.fromkeys(each.name for each in METHOD))
    assert plain == [name for name in everything if name not in ("grouping", "audit")]
    assert several.index("selection/edit") < several.index("synthesis") < several.index("selection")
