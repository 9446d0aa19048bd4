"""Breeding: inherited noise, which children are tried, what is accepted, rounds that are kept.

The random models' CLIP takes all images for one attribute: brightness is judged in its place.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysynth.config.files import load_config
from raysynth.errors import ConfigError, StageError
from raysynth.generators.inputs import synthesis_inputs
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.planning import sizes
from raysynth.planning.preflight import warnings_of
from raysynth.progress import Progress
from raysynth.scoring.attributes import probabilities
from raysynth.storage.tables import decode_images
from raysynth.synthesis.breeding import FOLDER, Breeder, breed, breeds_of
from raysynth.synthesis.checks import check_rebalance
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.gaussian import gaussians_of
from raysynth.synthesis.lineage import cosine, inherited, likeness, lineage_of
from raysynth.synthesis.rebalance import (
    FIRST,
    INHERITED,
    LEAST_COSINE,
    PATIENCE,
    Seen,
    Start,
    Wanted,
    births,
    bred_per_image,
    evolve,
    farther,
    shares_of,
    targets,
)
from raysynth.synthesis.shards import read_shards
from raysynth.synthesis.solver import check_kind, kind_of
from raysynth.synthesis.specs import Asked, image_seed, voices_of
from raysynth.synthesis.stage import run_synthesis
from raysynth.synthesis.task import LINEAGE, Drawing, Task
from tests.synthesis.conftest import COUNTS, GROUPS, shared_record
from tests.synthesis.test_sources import PROMPT

PLAIN = {"template": "a photo of a {label}"}
WANTED = Wanted("coat/grass", 10, 0.1, founders=2, children=3)
BRED = {"rebalance": {"judge": "clip", "founders": 2, "children": 2}, "images_per_group": 5}


def seen(founder: int, path: str = "", accepted: bool = True, drawn: bool = True) -> Seen:
    return Seen(births(path), founder, drawn, 0.9 * accepted, accepted)


def test_a_child_s_noise_is_as_wide_as_its_parent_s_and_as_near_as_sigma_says():
    parent, birth = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    child = inherited(parent, birth, 0.5)
    assert torch.allclose(child, (parent + 0.5 * birth) / 1.25**0.5)
    assert child.std().item() == pytest.approx(1, abs=0.01)
    assert cosine(child, parent) == pytest.approx(1 / 1.25**0.5, abs=0.01)


def test_noise_is_a_function_of_seed_and_path():
    founder = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(7))
    assert torch.equal(lineage_of(7, (), 0.5).normal(4, 8, 8), founder)
    own = lineage_of(7, (2, 0), 0.5)
    first, second = own.normal(4, 8, 8), own.normal(3)
    again = lineage_of(7, (2, 0), 0.5)
    assert torch.equal(again.normal(4, 8, 8), first) and torch.equal(again.normal(3), second)
    for other in ((8, (2, 0)), (7, (2, 1)), (7, (0, 2)), (7, (2,))):
        assert not torch.allclose(lineage_of(*other, 0.5).normal(4, 8, 8), first, atol=0.1)
    near, parents = likeness(7, (2, 0), 0.5, (4, 8, 8))
    assert parents == pytest.approx(1 / 1.25**0.5, abs=0.1)
    assert near == pytest.approx(1 / 1.25, abs=0.15)
    assert near == pytest.approx(cosine(first, founder))


def test_children_are_drawn_farther_from_the_founder_and_not_when_nothing_is_left_of_it():
    assert farther(0.5, 0.6) and not farther(0.6, 0.5) and not farther(0.5, 0.5)
    assert farther(LEAST_COSINE, 0.6) and not farther(LEAST_COSINE - 1e-9, 0.6)


def test_founders_are_sought_first_then_their_children_in_turn():
    first = evolve(replace(WANTED, share=0.2), [])
    assert first == [Start((), n) for n in range(10)], "two of a share of 0.2"
    plain = [seen(n, accepted=n in (3, 8)) for n in range(20)]
    children = evolve(WANTED, plain)
    assert [(s.told, s.founder) for s in children] == [
        *(("0", 3), ("0", 8), ("1", 3), ("1", 8), ("2", 3), ("2", 8))
    ]
    more = evolve(WANTED, plain[:5])
    assert more[0] == Start((), 5), "one of five so far: one more is sought"
    assert len(more) == 8 == round(1 / (2 / 15) + 0.49)
    rare = replace(WANTED, share=0.01)
    assert len(evolve(rare, [])) == FIRST * 2
    assert len(evolve(rare, [seen(n, accepted=False) for n in range(40)])) == 40, "as many again"


def test_generations_follow_each_other_and_ask_no_more_than_the_quota_is_likely_to_take():
    plain = [seen(n, accepted=n in (3, 8)) for n in range(20)]
    born = [seen(f, path, path == "1") for path in "012" for f in (3, 8)]
    next_ones = evolve(WANTED, plain + born)
    assert [(s.told, s.founder) for s in next_ones] == [
        (f"1-{n}", f) for n in range(3) for f in (3, 8)
    ]
    nearly = replace(WANTED, quota=5)
    assert len(evolve(nearly, plain + born)) == 3, "one is missing, 2 of 6 were accepted: 7 / 3"
    assert evolve(replace(WANTED, quota=4), plain + born) == []


def test_where_all_lineages_have_stopped_founders_are_sought_again():
    plain = [seen(n, accepted=n in (3, 8)) for n in range(20)]
    born = [seen(f, path, accepted=False, drawn=False) for path in "012" for f in (3, 8)]
    assert evolve(WANTED, plain + born)[0] == Start((), 20)


def test_a_target_that_is_never_drawn_ends_the_search_with_numbers():
    never = [seen(n, accepted=False) for n in range(PATIENCE * 10)]
    assert evolve(WANTED, never[:-1]) == [Start((), PATIENCE * 10 - 1)], "the last one"
    with pytest.raises(StageError, match=r"of 500 images of coat/grass the judge takes 0.*Fix: a"):
        evolve(WANTED, never)
    some = [*never[:100], seen(100), *(seen(n, accepted=False) for n in range(101, 601))]
    assert [s.told for s in evolve(WANTED, some)] == ["0", "1", "2"], "with one founder it goes on"


def test_images_are_judged_with_their_class_s_shares_as_prior():
    shares = np.array(shares_of(np.array([99, 1, 0, 3]), GROUPS))
    assert shares == pytest.approx([0.99, 0.01, 0.25, 0.75])
    likely = np.array([[0.2, 0.8], [0.001, 0.999], [0.2, 0.8], [0.7, 0.3]])
    assert targets(likely, np.array([1, 1, 2, 2]), shares).tolist() == [0, 1, 1, 1]
    assert targets(likely[3:], np.array([0]), np.full(4, 0.5)).tolist() == [0]


def test_the_judge_compares_the_groups_of_a_class():
    cosines = np.array([[0.5, 0.4, 0.9, 0.1], [0.0, 0.0, 0.1, 0.3]])
    found = probabilities(cosines, np.array([1, 2]), GROUPS, 10.0)
    assert found[0] == pytest.approx([np.e / (1 + np.e), 1 / (1 + np.e)])
    assert found[1] == pytest.approx([1 / (1 + np.e**2), np.e**2 / (1 + np.e**2)])


def test_a_gaussian_s_draw_is_inherited_too():
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.standard_normal((200, 1, 2, 3))).float()
    found = gaussians_of(latents, np.zeros(200, int), GROUPS)
    mean, _ = found.of(0)
    dice = [lineage_of(3, path, 0.1) for path in ((), (0,))]
    one, near = found.draw([0, 0], dice).flatten(1) - mean
    (alone,) = found.draw([0], [torch.Generator().manual_seed(3)]).flatten(1) - mean
    assert torch.allclose(one, alone) and cosine(one, near) > 0.95 and not torch.equal(one, near)


@pytest.fixture(scope="module")
def bred_config(make_config):
    return make_config(
        generator="shared", prompts=PLAIN, synthesis=BRED, finetune={"engine": "full"}
    )


@pytest.fixture(scope="module")
def given(bred_config, shared_folder, clusters_folder) -> tuple[Task, Asked, Any]:
    recipe = settled(recipe_of(bred_config), np.array(COUNTS))
    task = Task.of(bred_config, GROUPS, shared_folder, ("shared",), clusters_folder, recipe=recipe)
    asked = Asked.of(bred_config, recipe)
    voices = voices_of(asked, [shared_record()], GROUPS, COUNTS)
    shares = (0.5,) * GROUPS.count
    return task, asked, breeds_of(asked.synthesis.rebalance, voices, GROUPS, shares)


def run(look: Any, given: Any, work: Path) -> tuple[pa.Table, dict[str, Any]]:
    return breed(look, *given, str(work), Progress())


class Bright(Breeder):
    """Takes the brighter half of plain images for attribute 1."""

    @property
    def _judge(self) -> Any:
        def judge(pixels: np.ndarray, group: np.ndarray) -> np.ndarray:
            bright = 1 / (1 + np.exp(self.limit - pixels.reshape(len(pixels), -1).mean(axis=1)))
            return np.stack([1 - bright, bright], axis=1)

        return judge

    @cached_property
    def limit(self) -> float:
        """Median brightness of the sixteen first."""
        plain = ([PROMPT] * 16, [""] * 16, ["shared"] * 16, list(range(16)))
        return float(np.median(self._sampler.generate(*plain).reshape(16, -1).mean(axis=1)))


@pytest.fixture(scope="module")
def breeder(given) -> Breeder:
    return Bright(given[0], (0.5,) * GROUPS.count)


@pytest.fixture(scope="module")
def bred(given, breeder, tmp_path_factory) -> tuple[pa.Table, dict[str, Any], Path]:
    work = tmp_path_factory.mktemp("bred")
    return *run(breeder.look, given, work), work


def test_accepted_images_fill_the_quota_and_begin_where_their_path_says(bred):
    specs, facts, _ = bred
    group = specs["group"].to_numpy()
    assert np.bincount(group).tolist() == [5] * 4
    assert group.tolist() == sorted(group) and specs[0].to_pylist() == list(range(20))
    for g in range(4):
        own = [name for name, k in zip(specs["id"].to_pylist(), group, strict=True) if k == g]
        assert own == sorted(set(own))
    for row in specs.to_pylist():
        assert row["seed"] == image_seed(0, row["group"], 0, row["founder"])
        assert row["id"] == "-".join(
            [f"g{row['group']}-c0-{row['founder']:06d}", *filter(None, [row["path"]])]
        )
        assert row["judged"] > 0.5
    assert any(specs["path"].to_pylist())
    for told in facts.values():
        assert told["accepted"] == 5 and told["founders"] >= 1
        assert told["images"] >= told["plain"] and told["images"] >= 5
        assert told["images_per_accepted"] == pytest.approx(told["images"] / 5 + 1, abs=0.01)


def test_what_was_judged_is_what_specs_draw_alone(bred, given, breeder):
    specs = bred[0]
    some = specs.take([3, 12]).append_column("voice", pa.array([0, 2], pa.int32()))
    again = breeder.look(some.drop_columns(["judged"]))
    assert again["accepted"].to_pylist() == [True, True]
    assert again["judged"].to_numpy() == pytest.approx(some["judged"].to_numpy(), abs=1e-3)


def test_rounds_that_are_there_are_kept_and_one_that_was_cut_off_is_done_again(
    bred, given, breeder, tmp_path
):
    specs, facts, work = bred
    names = sorted(path.name for path in (work / FOLDER).iterdir())
    assert len(names) > 2
    for name in names:
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        (tmp_path / FOLDER / name).write_bytes((work / FOLDER / name).read_bytes())

    def nobody(specs: pa.Table) -> pa.Table:
        raise AssertionError("all rounds are there")

    again, same = run(nobody, given, tmp_path)
    assert again.equals(specs) and same == facts
    (tmp_path / FOLDER / names[-1]).unlink()
    (tmp_path / FOLDER / names[-2]).write_bytes(b"cut off")
    calls = []

    def counted(specs: pa.Table) -> pa.Table:
        calls.append(specs.num_rows)
        return breeder.look(specs)

    again, same = run(counted, given, tmp_path)
    assert again["id"].equals(specs["id"]) and same == facts and len(calls) == 2


def test_without_a_path_images_are_what_they_were(make_config, shared_folder):
    config = make_config(generator="shared", synthesis=BRED, finetune={"engine": "full"})
    generate = ImageGenerator(Drawing.of(config), shared_folder, ("shared",))
    rows = ([PROMPT] * 3, [""] * 3, ["shared"] * 3, [5, 5, 5])
    plain = generate(*rows)
    bred = generate(*rows, paths=["", "1", "1-0"])
    assert np.array_equal(bred[0], plain[0])
    assert (bred[1] != bred[0]).any() and (bred[2] != bred[1]).any()
    alone = generate(*([column[2]] for column in rows), paths=["1-0"])
    assert np.abs(alone[0].astype(int) - bred[2].astype(int)).max() <= 1


@pytest.mark.slow
def test_a_stage_breeds_on_ray(ray_local, make_config, tmp_path):
    """The embedded base as it is draws all grounds that it knows; its CLIP tells two apart."""
    models = {"name": "embedded", "clip": "embedded"}
    some = BRED | {"images_per_group": 3, "scorers": [], "steps": 4}
    config = make_config(generator="vanilla", prompts=PLAIN, synthesis=some, base=models)
    counts, where = [300] * 4, str(tmp_path)
    facts = run_synthesis(config, "", "", "", GROUPS, counts, where, Progress())
    assert facts["groups"] == dict.fromkeys(GROUPS.names, 3)
    assert all(told["accepted"] == 3 <= told["images"] for told in facts["rebalance"].values())
    table = read_shards(where)
    assert [table.schema.field(f.name).type for f in LINEAGE] == LINEAGE.types
    assert table["judged"].to_numpy().min() > 0.5
    row = next(n for n, path in enumerate(table["path"].to_pylist()) if path)
    names = ("prompt", "negative_prompt", "adapter", "seed", "path")
    prompt, negative, adapter, seed, path = ([table[name][row].as_py()] for name in names)
    generate = ImageGenerator(Drawing.of(config), "", ())
    alone = generate(prompt, negative, adapter, seed, paths=path)[0].astype(int)
    assert np.abs(alone - decode_images(table["image"])[row]).max() <= 1
    assert not (tmp_path / FOLDER).exists()


def test_it_decides_only_where_it_is_on():
    plain = synthesis_inputs(load_config())
    off = ["synthesis.rebalance.sigma=0.7", "synthesis.rebalance.founders=3"]
    assert synthesis_inputs(load_config(None, off)) == plain
    on = synthesis_inputs(load_config(None, ["synthesis.rebalance.judge=clip", *off]))
    assert on["knobs"].pop("rebalance")["sigma"] == 0.7
    assert on == plain


def test_what_cannot_be_bred_is_refused(make_config, base_folder, tmp_path):
    edits = make_config(generator="edit", synthesis=BRED | {"gaussian_above": None})
    with pytest.raises(ConfigError, match=r"generator=edit edits real images.*Fix: generator=sha"):
        check_rebalance(edits)
    check_rebalance(make_config(synthesis=BRED))
    check_rebalance(make_config(synthesis=BRED | {"solver": "ddim"}))
    assert kind_of("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"})
    for kind, settings in (
        ("EulerAncestralDiscreteScheduler", {}),
        ("DDPMScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    ):
        with pytest.raises(ConfigError, match=r"adds noise.*Fix: synthesis.solver=dpmsolver\+\+"):
            check_kind(kind_of(kind, settings))
    check_kind(kind_of("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": False}))


def test_a_stochastic_base_is_refused_before_it_is_loaded(make_config, tmp_path):
    folder = tmp_path / "scheduler"
    folder.mkdir()
    (folder / "scheduler_config.json").write_text(
        '{"_class_name": "EulerAncestralDiscreteScheduler"}'
    )
    config = make_config(synthesis=BRED | {"solver": "base"}, base={"name": str(tmp_path)})
    with pytest.raises(ConfigError, match="EulerAncestralDiscreteScheduler, which adds noise"):
        check_rebalance(config)
    check_rebalance(make_config(synthesis={"solver": "base"}, base={"name": str(tmp_path)}))


def test_a_template_without_attribute_is_taken_where_images_are_judged():
    plain = ["generator=shared", "prompts.template=a {label}"]
    with pytest.raises(ConfigError, match=r"or synthesis\.rebalance\.judge=clip"):
        load_config(None, plain)
    config = load_config(None, [*plain, "synthesis.rebalance.judge=clip"])
    assert warnings_of(config) == []
    (warning,) = warnings_of(load_config(None, ["synthesis.rebalance.judge=clip"]))
    assert "names the attribute" in warning and "Fix: synthesis.rebalance.judge=none" in warning


def test_a_plan_counts_what_is_drawn_per_accepted_image():
    even = Wanted("", 100, 0.5, 10, 3)
    assert bred_per_image(even) == pytest.approx(1 + (10 / 0.5 + 90 / INHERITED) / 100)
    config = load_config(None, ["synthesis.rebalance.judge=clip", "synthesis.images_per_group=80"])
    told: list[str] = []
    drawn = sizes.drawn_per_image(config, GROUPS, np.array([99, 1, 1, 99]), told)
    each = [1 + (8 / share + 72 / INHERITED) / 80 for share in (0.99, 0.01)]
    assert drawn == pytest.approx(sum(each) / 2)
    assert "an estimate: pullover/grass 2.9, pullover/gravel 12.8" in told[0]
    assert sizes.drawn_per_image(load_config(), GROUPS, np.ones(4), told) == 1.0
