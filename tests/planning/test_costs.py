"""What a run costs, counted in images: classifiers, generation, host memory."""

from __future__ import annotations

from dataclasses import replace

import psutil
import pyarrow as pa
import pytest

from raysynth.cluster.capacity import crowded
from raysynth.config.files import load_config
from raysynth.generators.recipe import candidates, recipe_of
from raysynth.groups.groups import Groups
from raysynth.method import nodes_of
from raysynth.models.efficientnet_lite import FLOPS
from raysynth.models.settings import LITE
from raysynth.planning import costs, sizes
from raysynth.references.reference import REFERENCES, settings
from raysynth.stages.stage import Cost, function
from raysynth.training.two_stage import configured, plan_of

SPLITS = {"train": 1000, "validation": 100, "test": 300}
OWN = Groups(("a", "b"), ("grass", "gravel"), ("a", "b"), ("grass", "gravel"))
IMAGES = sizes.Images(SPLITS, 4, 800, 600, 32, 32, 32)
REFERENCE = ["references.steps=40", "references.evaluations=8", "references.jtt_steps=10"]


def reference(name: str) -> tuple[float, float]:
    whole = load_config(None, REFERENCE)
    config = whole.references.settled(whole.classifier)
    return costs.passes(REFERENCES[name].plan(config, settings(config)[0], 0), 16, IMAGES)


def test_a_training_looks_at_validation_at_every_stopping_point():
    assert reference("erm") == (40 * 16, 8 * 100)


def test_a_head_on_features_looks_at_the_training_images_too():
    assert reference("erm_balanced_head") == (40 * 16, 8 * (100 + 1000))


def test_jtt_trains_twice_and_ffr_in_two_phases():
    assert reference("jtt") == ((10 + 40) * 16, 8 * 100 + 1000)
    assert reference("ffr") == ((40 + 40) * 16, 8 * 100 + 8 * 100)


def test_heads_on_synthetic_images_look_at_them():
    config = load_config(None, ["classifier.head_real_share=0.5", "classifier.ratio=0.2"])
    plan = plan_of(configured(config.classifier), config.classifier)
    assert costs.passes(plan, 1, IMAGES)[1] == 4 * (100 + 1000 + 200)


def counted(*overrides: str) -> int:
    """Trainings of a run whose search has three."""
    config = load_config(None, ["search.trials=3", "references.names=[erm]", *overrides])
    found = [*costs.reference_trainings(config), *costs.search_trainings(config)]
    found += costs.final_trainings(config)
    if config.generator == "auto":
        found += costs.choice_trainings(config)
    return sum(times for _, times in found)


def test_all_trainings_of_a_run_are_counted():
    own, search, erm = 3, 3, 2 + 2  # two weight decays, two more seeds of the better
    assert counted() == own + search + erm
    assert counted("classifier.mixtures=[ffr, usb]") == own + search + erm + 2 * (2 + 2)
    assert counted("references.names=[erm, erm_balanced_head]") == own + search + erm + 2
    candidates = ["generator=auto", "candidates=[vanilla, shared]"]
    assert counted(*candidates) == own + search + erm + 2 * (2 + 1)
    frozen = ["classifier.start=pretrained", "search.steps=[0, 0]"]
    assert counted(*frozen) == 1 + 1 + erm


def test_generation_costs_what_its_size_costs():
    shape = sizes.base_shape(load_config(), [])
    flops = {}
    for size in (None, 32, 64):
        config = load_config(None, [] if size is None else [f"synthesis.image_size={size}"])
        images = sizes.image_sizes(config, SPLITS, OWN, shape, [])
        flops[size] = costs.generation_flops(recipe_of(config), config, shape, images)
    assert flops[None] == flops[32]
    assert flops[64] > 3.5 * flops[32], "all grows with the pixels but what is made of the text"


def test_guidance_within_an_interval_costs_less():
    """Six even steps, twelve evaluations; three of the levels are above .55."""
    shape, flops = sizes.base_shape(load_config(), []), []
    for interval in ("[0.0, 1.0]", "[0.55, 1.0]"):
        term = f"{{name: classifier_free, interval: {interval}}}"
        config = load_config(None, [f"synthesis.guidance=[{term}]"])
        images = sizes.image_sizes(config, SPLITS, OWN, shape, [])
        flops.append(costs.generation_flops(recipe_of(config), config, shape, images))
    assert flops[1] == pytest.approx(flops[0] * 9 / 12)


def test_host_memory_is_that_of_decoded_images():
    config = load_config(None, ["dataset.name=celeba", "dataset.path=/data", "selection.keep=0.5"])
    config = config.model_copy(
        update={"classifier": config.classifier.model_copy(update={"image_size": 224})}
    )
    said: list[str] = []
    images = sizes.image_sizes(config, SPLITS, OWN, sizes.base_shape(config, []), said)
    assert "real images of 512 x 512" in said[0]
    one, kept = 3 * 224 * 224, 4 * 800 // 2
    sized = costs.Sized(images, sizes.base_shape(config, []), {}, {})
    assert costs.of_classification(config, sized).host == {
        "driver": (1000 + 100 + kept) * one,
        "object store": (1000 + 100 + kept) * one,
        "worker": 300 * one,
    }
    assert costs.of_selection(config, sized).host == {"selection": 4 * 800 * 250.0}
    auto = config.model_copy(update={"generator": "auto"})
    assert costs.of_choice(auto, sized).host["driver"] == 4 * kept * one


def test_embedding_holds_a_batch_as_it_is_encoded_and_few_decoded_images():
    config = load_config(None, ["dataset.name=celeba", "dataset.path=/data"])
    found = {}
    for side in (64, 512, 4000):
        images = replace(IMAGES, real_side=side)
        found[side] = costs.embedding_bytes(config, images) / 1e9
    seen = 256 * 2 * 4 * 3 * 224**2 / 1e9  # CLIP's own size, and mirrored
    assert found[64] == pytest.approx(seen + 256 * 64**2 * (1.7 + 27) / 1e9)
    assert found[512] == pytest.approx(seen + (256 * 512**2 * 1.7 + 16 * 512**2 * 27) / 1e9)
    assert found[4000] < 2  # 256 of 16 megapixels as floats were 120 GB


@pytest.mark.parametrize(("overrides", "sets"), [([], 1), (["generator=auto"], 5)])
def test_the_images_of_chosen_generators_are_copied(overrides, sets):
    config = load_config(None, overrides)
    shape = sizes.base_shape(config, [])
    recipes = {one.generator: recipe_of(one) for one in candidates(config)}
    sized = costs.Sized(IMAGES, shape, recipes, {})
    found = Cost()
    for node in nodes_of(config):
        if node.stage.name == "synthesis":
            found += function(node.stage.cost)(node.config, sized)
    assert found.storage["synthetic"] == sets * 800 * 32**2 * costs.PNG_BYTES


def test_what_two_generators_share_costs_once():
    config = load_config(None, ["generator=auto", "candidates=[shared, edit]"])
    shape = sizes.base_shape(config, [])
    recipes = {one.generator: recipe_of(one) for one in candidates(config)}
    cost = costs.training_cost(recipes["edit"].training, config.finetune, shape)
    tuned = {name: costs.Tuned(10, 3, 1, name == "edit", cost) for name in recipes}
    shared, edit = (
        costs.of_finetune(one, costs.Sized(IMAGES, shape, recipes, tuned))
        for one in candidates(config)
    )
    assert shared.flops == {"fine-tuning": 10 * cost.training + 3 * cost.forward}
    assert edit == Cost()
    assert (shared + edit).storage == {"adapters": 4 * cost.trained}


def test_finding_groups_trains_a_classifier_looks_at_all_images_and_writes_them_again():
    given, found = (load_config(None, [f"dataset.attributes={a}"]) for a in ("given", "unknown"))
    assert not any(node.name == "grouping" for node in nodes_of(given))
    (node,) = (node for node in nodes_of(found) if node.name == "grouping")
    sized = costs.Sized(IMAGES, sizes.base_shape(found, []), {}, {})
    cost = function(node.stage.cost)(found, sized)
    forward = costs.RESNET_50_FLOPS * (32 / 224) ** 2
    steps = 3 * 300 * 64 + 100  # three passes a step; one look at validation
    assert cost.flops["classifiers"] == pytest.approx(forward * (steps + 1400))
    assert cost.storage == costs.of_ingest(found, sized).storage


def test_efficientnet_lite_is_counted_wherever_it_looks():
    plain = load_config(None, ["references.controls=[]"])
    sized = costs.Sized(IMAGES, sizes.base_shape(plain, []), {}, {})
    lite = load_config(
        None,
        [
            f"classifier.backbone={LITE}",
            f"clustering.encoder={LITE}",
            "references.controls=[imagenet_balanced_head]",
        ],
    )
    ratio = FLOPS / costs.RESNET_50_FLOPS
    before, found = (costs.of_references(each, sized).flops for each in (plain, lite))
    assert found["classifiers"] == pytest.approx(ratio * before["classifiers"])
    assert found["controls"] == FLOPS * sum(SPLITS.values()) and "controls" not in before
    embedding = costs.of_clustering(lite, sized).flops
    assert embedding == {"embedding": FLOPS * 2 * (SPLITS["train"] + SPLITS["validation"])}
    assert not costs.of_clustering(plain, sized).flops


def test_inferring_attributes_trains_the_base_and_looks_at_all_training_images():
    asked = "grouping.method={name: dmis, steps: 10, batch_size: 8}"
    found = load_config(None, ["dataset.hidden_attributes=0.5", asked])
    (node,) = (node for node in nodes_of(found) if node.name == "grouping")
    sized = costs.Sized(IMAGES, sizes.base_shape(found, []), {}, {})
    cost = function(node.stage.cost)(found, sized)
    unet = costs.training_cost(None, found.finetune, sized.shape)
    rows, looks = 10 * 8 + 5 * 4 * 2, 5 * 4 * 2 * 2 + SPLITS["train"] * 2 * 6
    assert cost.flops == {"grouping": rows * unet.training + looks * unet.forward}
    assert cost.storage == costs.of_ingest(found, sized).storage


def test_groups_are_planned_as_those_that_are_known():
    config = load_config(None, ["dataset.hidden_attributes=0.5", "grouping.method=dmis"])
    group = [0] * 3 + [1] + [-1] * 8 + [2, 3] + [-1] * 4
    listing = pa.table(
        {
            "label": pa.array([0] * 12 + [1] * 6, pa.int32()),
            "group": group,
            "split": ["train"] * 18,
        }
    )
    said: list[str] = []
    planned, counts = sizes.planned_groups(config, OWN, listing, said)
    assert planned == OWN and counts["train"].tolist() == [9, 3, 3, 3]
    assert counts["test"].tolist() == [0] * 4 and "as those that are known" in said[0]


def test_what_is_planned_with_before_groups_are_found():
    for attributes, groups in ((["grass", None], 2), (["grass", "gravel"], 4)):
        config = load_config(None, ["dataset.attributes=unknown"])
        known = [a is not None for a in attributes]
        listing = pa.table(
            {
                "label": pa.array([0, 0, 1, 1], pa.int32()),
                "group": [2 * y + a if known[a] else -1 for y in (0, 1) for a in (0, 1)],
                "split": ["train"] * 4,
            }
        )
        said: list[str] = []
        planned, counts = sizes.planned_groups(config, OWN, listing, said)
        assert planned.count == groups and counts["train"].tolist() == [4 // groups] * groups
        assert ("every class was one group" in said[0]) == (groups == 2)


def test_a_run_that_needs_more_memory_than_this_machine_has_is_said():
    resources = load_config(None, []).resources
    there = psutil.virtual_memory().total
    fits = {"driver": there / 2, "object store": there / 4, "selection": there / 2}
    assert crowded(resources, fits) == []
    for much in ({"object store": there}, {"selection": 2.0 * there}):
        (said,) = crowded(resources, fits | much)
        assert f"this machine has {there / 1e9:,.1f} GB" in said and "Fix:" in said
    elsewhere = resources.model_copy(update={"address": "10.0.0.5:6379"})
    assert crowded(elsewhere, fits | {"object store": there}) == []


@pytest.mark.parametrize(
    ("name", "title", "side"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "Stable Diffusion XL", 1024),
        ("Tongyi-MAI/Z-Image-Turbo", "Z-Image", 1024),
        ("fal/AuraFlow-v0.3", "AuraFlow", 512),
        ("somebody/something", "Stable Diffusion 1.x, 2.x", 512),
    ],
)
def test_a_hub_ids_sizes_are_those_of_the_family_that_it_is_known_for(name, title, side):
    said: list[str] = []
    shape = sizes.base_shape(load_config(None, [f"base.name={name}"]), said)
    assert (shape.family.title, shape.side) == (title, side)
    assert f"{name} has the shape of {title}" in said[0]
