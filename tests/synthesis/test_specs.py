"""Specs: shares, ids, seeds, the swap rule, any number of labels and attributes."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest

from raysynth.adapters.fused import weights_of
from raysynth.adapters.record import Adapter
from raysynth.config.config import Config
from raysynth.errors import StageError
from raysynth.generators.lending import class_lender
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.synthesis.plan import Listed, batches, group_ranges, plan_specs, whole
from raysynth.synthesis.specs import SPECS, Asked, image_seed
from tests.synthesis.conftest import plan_of, planned

GROUPS = Groups(
    ("cat", "dog", "fox"), ("snow", "sand"), ("cat", "dog", "fox"), ("deep snow", "warm sand")
)
COUNTS = [90, 3, 4, 80, 50, 50]
KNOWN = (GROUPS, COUNTS)


def config(**sections) -> Config:
    """The paper's rule for small groups, unless `sections` say otherwise."""
    synthesis = {"images_per_group": 7, "guidance_scale": 3.0, "steps": 4, "lender": "label"}
    synthesis |= sections.pop("synthesis", {})
    return Config.model_validate({"seed": 11, "synthesis": synthesis, **sections})


def adapter(group: int, cluster: int, name: str | None = None) -> Adapter:
    name = name or f"{group}-{cluster}"
    return Adapter(name, "lora", "group_cluster", group, cluster, "", "", "", 20, 1, 0.0)


# Groups 1 and 2 are too small for adapters; group 0 has three clusters.
ADAPTERS = [adapter(g, k) for g, k in ((3, 0), (0, 2), (0, 0), (0, 1), (4, 0), (5, 0), (5, 1))]


def test_three_by_two_groups_share_their_candidates_equally():
    table = planned(config(), ADAPTERS, GROUPS, COUNTS)
    assert table.schema == SPECS
    assert Counter(table["group"].to_pylist()) == dict.fromkeys(range(6), 7)
    shares = Counter(zip(table["group"].to_pylist(), table["cluster"].to_pylist(), strict=True))
    assert [shares[0, k] for k in range(3)] == [3, 2, 2]
    assert [shares[5, k] for k in range(2)] == [4, 3]
    assert table["group"].to_pylist() == sorted(table["group"].to_pylist())
    assert table["label"].to_pylist()[::7] == [0, 0, 1, 1, 2, 2]
    assert table["attribute"].to_pylist()[::7] == [0, 1, 0, 1, 0, 1]


def test_a_row_says_all_there_is_to_know():
    row = planned(config(), ADAPTERS, GROUPS, COUNTS).to_pylist()[3]
    assert row == {
        "row_of_plan": 3,
        "id": "g0-c1-000000",
        "label": 0,
        "attribute": 0,
        "group": 0,
        "cluster": 1,
        "generator": "clustered_dreambooth",
        "adapter": "0-1",
        "source": "",
        "prompt": "a photo of a sks cat on deep snow",
        "negative_prompt": "",
        "seed": image_seed(11, 0, 1, 0),
        "guidance_scale": 3.0,
        "steps": 4,
    }


def test_small_groups_borrow_the_aligned_groups_model():
    """Attribute word swapped, rare token dropped, source attribute as negative prompt."""
    rows = planned(config(), ADAPTERS, GROUPS, COUNTS).to_pylist()
    cats = [r for r in rows if r["group"] == 1]
    assert Counter(r["adapter"] for r in cats) == {"0-0": 3, "0-1": 2, "0-2": 2}
    assert {r["prompt"] for r in cats} == {"a photo of a cat on warm sand"}
    assert {r["negative_prompt"] for r in cats} == {"deep snow"}
    assert [r["id"] for r in cats][:4] == [f"g1-c0-{i:06d}" for i in range(3)] + ["g1-c1-000000"]
    dogs = [r for r in rows if r["group"] == 2]
    assert {(r["adapter"], r["negative_prompt"]) for r in dogs} == {("3-0", "warm sand")}
    both = planned(config(prompts={"negative": "blurry"}), ADAPTERS, GROUPS, COUNTS).to_pylist()
    assert {r["negative_prompt"] for r in both if r["group"] == 1} == {"blurry, deep snow"}
    assert {r["negative_prompt"] for r in both if r["group"] == 0} == {"blurry"}


def test_small_groups_borrow_from_the_group_of_their_attribute():
    """The label's word swapped; the lender's is no negative prompt."""
    lent = config(synthesis={"lender": "attribute"})
    rows = planned(lent, ADAPTERS, GROUPS, COUNTS).to_pylist()
    cats, dogs = ([r for r in rows if r["group"] == group] for group in (1, 2))
    assert {(r["adapter"], r["prompt"], r["negative_prompt"]) for r in cats} == {
        ("3-0", "a photo of a cat on warm sand", "")
    }
    assert {r["negative_prompt"] for r in dogs} == {""}
    assert {r["adapter"] for r in dogs} == {"0-0", "0-1", "0-2"}
    by_class = planned(config(), ADAPTERS, GROUPS, COUNTS).to_pylist()
    assert [r["prompt"] for r in rows[:7]] == [r["prompt"] for r in by_class[:7]]


def test_where_no_group_of_the_attribute_has_a_model_the_class_lends():
    counts = [90, 4, 50, 4]  # both aligned groups are on snow
    adapters = [adapter(0, 0), adapter(2, 0)]
    by = {
        lender: planned(
            config(synthesis={"images_per_group": 2, "lender": lender}),
            adapters,
            Groups(("cat", "dog"), ("snow", "sand"), ("cat", "dog"), ("deep snow", "warm sand")),
            counts,
        )
        for lender in ("label", "attribute")
    }
    assert by["label"].equals(by["attribute"])


def test_a_named_aligned_group_lends_and_the_largest_where_it_is_too_small():
    """Dogs go with snow here, whichever group is larger."""
    groups = replace(GROUPS, aligned=("snow", "snow", *[""] * (len(GROUPS.label_names) - 2)))
    assert class_lender(recipe_of(config()), np.array([90, 4, 40, 50, 0, 0]), groups, 3) == 2
    assert class_lender(recipe_of(config()), np.array([90, 4, 4, 50, 0, 0]), groups, 2) == 3


def test_a_class_without_any_adapter_is_refused_by_name():
    with pytest.raises(StageError, match=r"group dog/snow \(4 training images\).*dog/sand.*Fix"):
        planned(config(), [a for a in ADAPTERS if a.group != 3], GROUPS, COUNTS)


def test_vanilla_speaks_without_the_token():
    vanilla = config(generator="vanilla")
    rows = planned(vanilla, [], GROUPS, COUNTS).to_pylist()
    assert {(r["adapter"], r["generator"], r["cluster"]) for r in rows} == {("", "vanilla", 0)}
    assert rows[-1]["prompt"] == "a photo of a fox on warm sand"


def test_one_shared_model_speaks_for_every_group():
    shared = config(generator="shared", finetune={"min_images": 1})
    rows = planned(shared, [adapter(-1, -1, "shared")], GROUPS, COUNTS).to_pylist()
    assert {(r["adapter"], r["generator"]) for r in rows} == {("shared", "shared")}
    assert rows[7]["prompt"] == "a photo of a sks cat on warm sand"
    assert {r["negative_prompt"] for r in rows} == {""}


def small_group(shared: Config, adapters: list[Adapter], counts: list[int]) -> set:
    rows = planned(shared, adapters, GROUPS, counts).to_pylist()
    small = [row for row in rows if row["group"] == 2]
    return {(r["adapter"], r["cluster"], r["prompt"], r["negative_prompt"]) for r in small}


def test_a_shared_model_speaks_for_small_groups_as_for_others():
    """It was not trained on them, but knows their attribute from other classes."""
    shared = config(generator="shared", finetune={"per": "all"})
    model = [adapter(-1, -1, "shared")]
    spoken = ("shared", 0, "a photo of a sks dog on deep snow", "")
    assert small_group(shared, model, COUNTS) == {spoken}
    # No class has snow: all that is known of it is the base's.
    swapped = ("shared", 0, "a photo of a dog on deep snow", "warm sand")
    assert small_group(shared, model, [3, 90, 4, 80, 4, 50]) == {swapped}


def test_a_class_model_that_saw_one_attribute_swaps_it():
    shared = config(generator="shared", finetune={"per": "class"})
    model = [replace(adapter(-1, -1, "class-1"), label="dog")]
    adapters = [replace(model[0], name=f"class-{y}", label=n) for y, n in enumerate(("cat", "fox"))]
    swapped = ("class-1", 0, "a photo of a dog on deep snow", "warm sand")
    assert small_group(shared, model + adapters, COUNTS) == {swapped}


def test_a_model_per_class_speaks_for_its_class():
    adapters = [
        replace(adapter(-1, -1, f"class-{y}"), label=name)
        for y, name in enumerate(GROUPS.label_names)
    ]
    per_class = config(generator="shared", finetune={"per": "class"})
    rows = planned(per_class, adapters, GROUPS, COUNTS).to_pylist()
    assert [rows[7 * g]["adapter"] for g in range(6)] == [f"class-{g // 2}" for g in range(6)]


def test_a_model_per_attribute_speaks_for_the_small_groups_of_its_attribute():
    """As for the groups that it was trained on: a negative prompt would tell the two apart."""
    names = GROUPS.attribute_names
    adapters = [
        replace(adapter(-1, -1, f"attribute-{a}"), attribute=name) for a, name in enumerate(names)
    ]
    shared = config(generator="shared", finetune={"per": "attribute"})
    rows = planned(shared, adapters, GROUPS, COUNTS).to_pylist()
    assert [rows[7 * g]["adapter"] for g in range(6)] == ["attribute-0", "attribute-1"] * 3
    assert {row["negative_prompt"] for row in rows} == {""}
    assert [rows[7 * g]["prompt"] for g in (1, 3)] == [
        "a photo of a sks cat on warm sand",
        "a photo of a sks dog on warm sand",
    ]
    only_snow = planned(shared, adapters[:1], GROUPS, [90, 4, 80, 4, 50, 4]).to_pylist()
    assert {row["adapter"] for row in only_snow} == {"attribute-0"}
    assert only_snow[7]["negative_prompt"] == "deep snow", "no class shows sand"


def test_sources_are_used_in_turn():
    edit = config(generator="edit", finetune={"min_images": 1})
    sources = {g: [f"{g}a", f"{g}b", f"{g}c"] for g in range(6)}
    table = planned(edit, [adapter(-1, -1, "shared")], GROUPS, COUNTS, sources)
    assert table["source"].to_pylist()[:8] == ["0a", "0b", "0c", "0a", "0b", "0c", "0a", "1a"]
    assert set(table["generator"].to_pylist()) == {"edit"}


def test_seeds_are_a_function_of_run_group_cluster_and_index():
    rows = planned(config(), ADAPTERS, GROUPS, COUNTS).to_pylist()
    fewer = planned(config(synthesis={"images_per_group": 3}), ADAPTERS, GROUPS, COUNTS).to_pylist()
    seeds = {r["id"]: r["seed"] for r in rows}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    assert all(seeds[r["id"]] == r["seed"] for r in fewer)
    assert image_seed(12, 0, 1, 0) != image_seed(11, 0, 1, 0)


def test_without_guidance_no_negative_prompt_is_heard_or_recorded():
    off = config(synthesis={"guidance_scale": 1.0}, prompts={"negative": "blurry"})
    table = planned(off, ADAPTERS, GROUPS, COUNTS)
    assert set(table["negative_prompt"].to_pylist()) == {""}


def test_any_rows_of_a_plan_are_those_of_the_whole():
    """Across voices and groups, with sources in turn and aims."""
    sources = {g: [f"{g}a", f"{g}b", f"{g}c"] for g in range(6)}
    asked = Asked.of(config(), recipe_of(config()))
    aims = {"cell": (2, 0, 3, 1, 1, 1)}
    plan = plan_specs(asked, ADAPTERS, GROUPS, COUNTS, sources, aims)
    table = whole(plan)
    assert table.num_rows == 42 and table["row_of_plan"].to_pylist() == list(range(42))
    for start in range(42):
        for stop in (start + 1, min(start + 5, 42), 42):
            assert plan.specs(start, stop).equals(table.slice(start, stop - start))
    assert list(group_ranges(plan)) == [(g, 7 * g, 7 * g + 7) for g in range(6)]
    listed = Listed(table, GROUPS)
    assert listed.counts.tolist() == plan.counts.tolist() == [7] * 6
    assert listed.specs(3, 17).equals(plan.specs(3, 17))


def test_a_plan_is_as_small_for_many_images_as_for_few():
    few, many = (
        len(pickle.dumps(plan_of(config(synthesis={"images_per_group": n}), ADAPTERS, *KNOWN)))
        for n in (7, 10_000_000)
    )
    assert many < few + 100


def test_batches_hold_the_same_rows_whatever_is_missing():
    cut = batches(np.array([[0, 10], [11, 12], [16, 33]]), 8).to_pylist()
    found = [(row["start"], row["stop"]) for row in cut]
    assert found == [(0, 8), (8, 10), (11, 12), (16, 24), (24, 32), (32, 33)]
    assert batches(np.zeros((0, 2), int), 8).num_rows == 0
    one = batches(np.array([[0, 64_000]]), 64)
    assert one.num_rows == 1000 and one["stop"].to_numpy()[-1] == 64_000


def test_loft_draws_each_image_with_some_adapters_of_its_group():
    """Group 1 has one image and draws by its adapter alone; group 2 has none and borrows."""
    own = [
        replace(adapter(g, n), scope="image")
        for g, n in ((0, 0), (0, 1), (0, 2), (1, 0), (3, 0), (3, 1))
    ]
    groups = Groups(("cat", "dog"), ("snow", "sand"), ("cat", "dog"), ("deep snow", "warm sand"))
    asked = config(generator="loft", synthesis={"images_per_group": 9, "fused": 2})
    table = planned(asked, own, groups, [3, 1, 0, 2])
    drawn = {g: table.filter(pc.field("group") == g)["adapter"].to_pylist() for g in range(4)}
    assert all(len(weights_of(name)) == 2 for name in drawn[0])
    assert {name for each in drawn[0] for name in weights_of(each)} == {"0-0", "0-1", "0-2"}
    assert set(drawn[1]) == {"1-0"}
    assert all(set(weights_of(name)) == {"3-0", "3-1"} for name in (*drawn[2], *drawn[3]))
    again = planned(asked, own, groups, [3, 1, 0, 2])
    assert again.equals(table)
