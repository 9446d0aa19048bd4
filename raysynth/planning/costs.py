"""What a run costs: FLOPs, GPU memory, storage and host memory, from shapes and counts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysynth.clustering.batches import images_at_once, rows_at_once
from raysynth.config.config import Config
from raysynth.finetune.optimizer import kept_bytes
from raysynth.finetune.packs import looks_of, passes_of
from raysynth.finetune.settings import FinetuneConfig
from raysynth.finetune.term import terms_of
from raysynth.generators.recipe import BUDGETS, Recipe, Training, candidates
from raysynth.models.efficientnet_lite import FLOPS as LITE_FLOPS
from raysynth.models.settings import CLIP, LITE
from raysynth.planning.known_costs import cost_of_network
from raysynth.planning.network_cost import UNetCost
from raysynth.planning.sizes import Images, Shape
from raysynth.planning.text_cost import with_texts
from raysynth.references.settings import CONTROLS, ReferencesConfig
from raysynth.scoring.scorer import evaluations_of
from raysynth.stages.stage import Cost
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.schedules.even import even_levels
from raysynth.synthesis.settings import MASK_DRAWS, PILOTS
from raysynth.training.plan import Plan, evaluation_steps
from raysynth.training.two_stage import configured, plan_of

PNG_BYTES = 1.7
"""Bytes per pixel of a photograph as PNG."""
FRAMEWORK_BYTES = 1.0e9
"""CUDA context and libraries."""
RESNET_50_FLOPS = 8.2e9
"""Forward pass at 224 x 224 (He et al. 2016: 4.1 GFLOP of multiply-adds)."""
FLOAT_BYTES = 4
CLIP_SIDE = 224
"""Side of the images that CLIP sees, pixels."""
LORA = Training("lora", "all", BUDGETS["lora", True])
"""Adapters of a model of several groups."""
GPUS_GB = (24, 40, 80)
SELECTED_BYTES = 250.0
"""Of each candidate in the driver while images are selected (`benchmarks/scale.py --only select`).
"""


def training_cost(training: Training | None, settings: FinetuneConfig, shape: Shape) -> UNetCost:
    """Cost of fine-tuning, which is done at the base's own size."""
    lora = training is not None and training.engine == "lora"
    targets = settings.targets if lora else None
    kept = settings.gradient_checkpointing
    rank = settings.most_rank
    cost = cost_of_network(shape.network, targets, rank, kept, shape.tokens, shape.family)
    if lora and settings.text_encoder:
        cost = with_texts(cost, shape.texts, shape.tokens, rank)
    return cost if training is not None else replace(cost, trained=0)


def generation_flops(recipe: Recipe, config: Config, shape: Shape, images: Images) -> float:
    """FLOPs of a generator's images: adapters are folded, the size is `synthesis.image_size`."""
    synthesis = config.synthesis
    guide = guide_of(synthesis.guidance, recipe.guidance_scale)
    # As if levels were even: others are known once images are encoded.
    levels = even_levels(recipe.begins, recipe.steps).tolist()
    evaluations = recipe.evaluations(guide.evaluations(levels), MASK_DRAWS)
    live = config.finetune.text_encoder and recipe.training is not None
    pilots = min(PILOTS * images.groups, images.candidates) if recipe.recolours else 0
    return (images.candidates + pilots) * evaluations * forward_flops(config, shape, images, live)


def scoring_flops(config: Config, shape: Shape, images: Images) -> float:
    """FLOPs of the base's network, and of the space of copies, in a generator's scorers."""
    evaluations = evaluations_of(config.synthesis.scorers, images.groups)
    each = evaluations * forward_flops(config, shape, images) if evaluations else 0.0
    return images.candidates * (each + LITE_FLOPS * (config.clustering.encoder == LITE))


def forward_flops(config: Config, shape: Shape, images: Images, live: bool = False) -> float:
    """FLOPs of the network for one generated image, once; adapters are folded.

    `live`: its prompt is read with it, by an adapted text encoder.
    """
    settings = config.finetune
    sized = shape.at(images.generated_side)
    kept = settings.gradient_checkpointing
    cost = cost_of_network(sized, None, settings.rank, kept, shape.tokens, shape.family)
    return (with_texts(cost, shape.texts, shape.tokens, rank=0) if live else cost).forward


def rows_per_image(training: Training | None, settings: FinetuneConfig) -> int:
    """Images that pass the UNet for one of a step's micro-batch."""
    return settings.accumulation * (1 if training is None else passes_of(training, settings))


def forwards(training: Training | None, settings: FinetuneConfig, work: Sequence[int]) -> int:
    """Images that pass the UNet besides, without being trained: for the terms of the loss.

    `work`: of each adapter, the images of its steps.
    """
    if training is None:
        return 0
    first = sum(added.passes.first for added in terms_of(settings))
    each = settings.accumulation * looks_of(training, settings)
    return sum(work) * each + len(work) * first


def training_memory(
    training: Training, settings: FinetuneConfig, cost: UNetCost, held: float
) -> Callable[[int], float]:
    """Adapters -> bytes of GPU memory of their training step; `held`: of `weights.held_bytes`."""
    budget = training.budget
    rows = budget.batch_size * passes_of(training, settings)
    copies = bool(budget.ema) + bool(settings.patience)
    per_weight = kept_bytes(settings) + FLOAT_BYTES * copies
    per_adapter = per_weight * cost.trained + rows * cost.activations
    return lambda adapters: FRAMEWORK_BYTES + held + adapters * per_adapter


def most_at_once(memory: Callable[[int], float], budget: float, lora: bool) -> int:
    """Adapters whose step fits; a full fine-tuning trains one at a time."""
    one = memory(1) <= budget
    if not one or not lora:
        return int(one)
    return 1 + int((budget - memory(1)) // (memory(2) - memory(1)))


def classifier_network(config: Config) -> tuple[str, float]:
    """Whose FLOPs a classifier's are counted as, and those of an image of 224 x 224."""
    if config.classifier.backbone == LITE:
        return "EfficientNet-Lite0's", LITE_FLOPS
    return "a ResNet-50's", RESNET_50_FLOPS


def classifier_forward(config: Config, images: Images) -> float:
    """FLOPs of the classifier's network for one image."""
    return classifier_network(config)[1] * (images.classified_side / 224) ** 2


def classifier_flops(
    config: Config, images: Images, trainings: Sequence[tuple[Plan, int]], measured: int = 0
) -> dict[str, float]:
    """FLOPs of classifiers: their steps, evaluations on the way and predictions of test.

    `trainings`: (plan, how often). `measured`: classifiers that predict the test images.
    """
    forward = classifier_forward(config, images)
    learnt, seen = 0.0, 0.0
    for plan, times in trainings:
        both = passes(plan, config.classifier.batch_size, images)
        learnt, seen = learnt + times * both[0], seen + times * both[1]
    return {"classifiers": forward * (3 * learnt + seen + measured * images.splits["test"])}


def reference_trainings(config: Config) -> list[tuple[Plan, int]]:
    """(Plan, how often) of the references."""
    references = config.references.settled(config.classifier)
    return _tuned(references.names, references, references.seeds)


def choice_trainings(config: Config) -> list[tuple[Plan, int]]:
    """(Plan, how often) of the choice among generators: each, and their mix."""
    from raysynth.selection.by_validation import SEEDS

    plan = plan_of(configured(config.classifier), config.classifier, heads=config.search.heads)
    return [(plan, SEEDS * (len(candidates(config)) + 1))]


def search_trainings(config: Config) -> list[tuple[Plan, int]]:
    """(Plan, how often) of the search, every trial to its end."""
    search = config.search
    if not search.trials:
        return []
    plan = plan_of(_searched(config), config.classifier, heads=search.heads)
    return [(plan, 1 if plan.frozen else search.trials)]


def final_trainings(config: Config) -> list[tuple[Plan, int]]:
    """(Plan, how often) of mixtures and of the method's own seeds."""
    classifier = config.classifier
    mixed = config.references.for_mixtures(classifier)
    own = plan_of(_searched(config), classifier)
    tuned = _tuned(classifier.mixtures, mixed, classifier.seeds)
    return [*tuned, (own, 1 if own.frozen else classifier.seeds)]


def _searched(config: Config) -> dict[str, Any]:
    """The parameters of a trial in the middle of the ranges; as configured, where none is made."""
    search, chosen = config.search, configured(config.classifier)
    if search.trials:
        chosen |= {"steps": sum(search.steps) // 2, "ratio": max(search.ratios)}
    return chosen


def passes(plan: Plan, batch: int, images: Images) -> tuple[float, float]:
    """Images that a training learns from, and those that it only looks at, at its evaluations."""
    train, validation = images.splits["train"], images.splits["validation"]
    each = validation
    if any(spec.objective != "trained" for spec in plan.heads):  # heads fitted to features
        each += train
    if plan.mixes:
        each += min(images.kept, round(plan.phases[0].ratio * train))
    stops = 1 if plan.frozen else len(evaluation_steps(plan.last.steps, plan.evaluations))
    seen = stops * each
    seen += sum(min(phase.keep_best, phase.steps) * validation for phase in plan.phases[:-1])
    seen += sum(phase.images == "real_errors" for phase in plan.phases) * train
    return float(sum(phase.steps for phase in plan.phases) * batch), float(seen)


def embedding_bytes(config: Config, images: Images) -> float:
    """Main memory of an actor that embeds the real images, beside its models and libraries.

    A batch as it is encoded, some of it decoded (bytes, then floats that are reduced), and what the
    models see of it.
    """
    side, encoded = images.real_side, images.real_side**2 * PNG_BYTES
    rows = images.splits["train"] + images.splits["validation"]
    batch = rows_at_once(min(config.clustering.batch_size, rows), encoded)
    decoded = min(batch, images_at_once(side, side)) * side**2 * 3 * (1 + 2 * FLOAT_BYTES)
    models = 2 + (config.clustering.encoder != CLIP)  # mirrored images too
    return batch * (encoded + models * FLOAT_BYTES * 3 * CLIP_SIDE**2) + decoded


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning one generator takes."""

    rows: int
    """Images that pass the UNet in all trainings."""
    forwards: int
    """Those that pass it besides, forwards alone."""
    adapters: int
    lent: bool
    """Whether another generator trains the same adapters."""
    cost: UNetCost


@dataclass(frozen=True)
class Sized:
    """What the stages' costs are counted of."""

    images: Images
    shape: Shape
    recipes: Mapping[str, Recipe]
    """Generator -> its recipe, settled for these data."""
    tuned: Mapping[str, Tuned]
    """Generator -> its fine-tuning."""
    bred: float = 1.0
    """Images drawn for each candidate, see `sizes.drawn_per_image`."""


def of_ingest(config: Config, sized: Sized) -> Cost:
    """The real table."""
    images = sized.images
    return Cost(storage={"real": sum(images.splits.values()) * images.real_side**2 * PNG_BYTES})


def of_clustering(config: Config, sized: Sized) -> Cost:
    """An actor that embeds; FLOPs of EfficientNet-Lite0, those of CLIP go by images."""
    images, flops = sized.images, {}
    if config.clustering.encoder == LITE:  # mirrored images too
        rows = images.splits["train"] + images.splits["validation"]
        flops["embedding"] = 2 * rows * LITE_FLOPS
    return Cost(flops, host={"embedding": embedding_bytes(config, images)})


def of_finetune(config: Config, sized: Sized) -> Cost:
    """One generator's adapters, unless another one trains the same."""
    tuned = sized.tuned[config.generator]
    if tuned.lent:
        return Cost()
    experts = config.finetune.experts
    kept = tuned.adapters * (1 + experts if experts > 1 else 1)
    return Cost(
        flops={
            "fine-tuning": tuned.rows * tuned.cost.training + tuned.forwards * tuned.cost.forward
        },
        storage={"adapters": FLOAT_BYTES * kept * tuned.cost.trained},
    )


def of_synthesis(config: Config, sized: Sized) -> Cost:
    """One generator's images; of edits, what they are made of until all are made."""
    images, recipe = sized.images, sized.recipes[config.generator]
    storage = {"synthetic": images.candidates * images.generated_side**2 * PNG_BYTES}
    if recipe.edits:
        sources = images.candidates * images.real_side**2 * PNG_BYTES
        storage["sources, until all are edited"] = sources
    drawn = generation_flops(recipe, config, sized.shape, images)
    flops = {"generation": sized.bred * drawn}
    if scored := scoring_flops(config, sized.shape, images):
        flops["scoring"] = scored
    return Cost(flops, storage)


def of_selection(config: Config, sized: Sized) -> Cost:
    """One generator's candidates in the driver, without their images."""
    return Cost(host={"selection": SELECTED_BYTES * sized.images.candidates})


def of_choice(config: Config, sized: Sized) -> Cost:
    """The chosen groups' images once more; all candidates' beside those composed of them."""
    images = sized.images
    return Cost(
        flops=classifier_flops(config, images, choice_trainings(config)),
        storage={"synthetic": images.candidates * images.generated_side**2 * PNG_BYTES},
        host={"driver": float(len(candidates(config)) * images.kept * images.image_bytes)},
    )


def of_references(config: Config, sized: Sized) -> Cost:
    """The references' tuning, and their predictions of test; what controls see images with."""
    measured = len(config.references.names) * config.references.seeds
    flops = classifier_flops(config, sized.images, reference_trainings(config), measured)
    each = sum(CONTROLS[name].flops for name in config.references.controls)
    if each:
        flops["controls"] = each * sum(sized.images.splits.values())
    return Cost(flops)


def of_search(config: Config, sized: Sized) -> Cost:
    """The trials."""
    return Cost(classifier_flops(config, sized.images, search_trainings(config)))


def of_classification(config: Config, sized: Sized) -> Cost:
    """Mixtures and final seeds; main memory of a driver, Ray's object store and a worker."""
    images, own = sized.images, config.classifier
    measured = (len(own.mixtures) + 1) * own.seeds
    return Cost(
        flops=classifier_flops(config, images, final_trainings(config), measured),
        host={
            "driver": images.shared_bytes,
            "object store": images.shared_bytes,
            "worker": float(images.splits["test"] * images.image_bytes),
        },
    )


def _tuned(names: Sequence[str], config: ReferencesConfig, seeds: int) -> list[tuple[Plan, int]]:
    """Every setting of every reference or mixture once, then the further seeds of the best."""
    from raysynth.references.reference import every_setting, merged

    tried = every_setting(names, config)
    one_each = {name: replace(plan, seed=1) for name, _, plan in tried}
    further = [(plan, seeds - 1) for plan in one_each.values()]
    return [*((plan, 1) for plan in merged(plan for _, _, plan in tried)), *further]
