"""What a run costs: FLOPs, GPU memory, storage and host memory, from shapes and counts alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.clustering.batches import images_at_once, rows_at_once
from raysynth.config.config import Config
from raysynth.finetune.packs import passes_of
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import AUTO, Recipe, Training, candidates
from raysynth.models.family import FAMILIES, USUAL, Family, family_of, reader_of
from raysynth.models.sources import CLIP, resolve
from raysynth.references.settings import ReferencesConfig
from raysynth.selection.rule import RULES
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.settings import MASK_DRAWS
from raysynth.training.plan import Plan
from raysynth.training.two_stage import configured, plan_of

if TYPE_CHECKING:
    from raysynth.planning.denoiser_cost import UNetCost

PNG_BYTES = 1.7
"""Bytes per pixel of a photograph as PNG."""
FRAMEWORK_BYTES = 1.0e9
"""CUDA context and libraries."""
STATE_BYTES = 16
"""Per trained number in float32: value, gradient, AdamW's two moments."""
RESNET_50_FLOPS = 8.2e9
"""Forward pass at 224 x 224 (He et al. 2016: 4.1 GFLOP of multiply-adds)."""
FLOAT_BYTES = 4
CLIP_SIDE = 224
"""Side of the images that CLIP sees, pixels."""
PHOTOGRAPH = 512
"""Side of a real image, pixels, where nobody says."""
GPUS_GB = (24, 40, 80)


@dataclass(frozen=True)
class Shape:
    """A base model's sizes."""

    family: Family
    unet: dict[str, Any]
    """diffusers' configuration of the network that predicts."""
    encoders: float
    """Bytes of VAE and text encoder."""
    factor: int
    """Pixels per latent position."""
    tokens: int
    """Length of a prompt."""

    def at(self, pixels: int) -> dict[str, Any]:
        """The UNet's configuration for images of this side."""
        return self.unet | {"sample_size": pixels // self.factor}

    @property
    def side(self) -> int:
        """Side of the model's own images, pixels."""
        return int(self.unet["sample_size"]) * self.factor


@dataclass(frozen=True)
class Images:
    """Numbers and sides (pixels) of a run's images."""

    splits: dict[str, int]
    """Real images."""
    groups: int
    candidates: int
    """Generated, of all groups together; by each generator."""
    kept: int
    """Of these, after selection."""
    real_side: int
    generated_side: int
    classified_side: int

    @property
    def shared_bytes(self) -> float:
        """Training, validation and kept images as the classifiers' decoded pixels."""
        decoded = self.splits["train"] + self.splits["validation"] + self.kept
        return float(decoded * self.image_bytes)

    @property
    def image_bytes(self) -> int:
        """Of one decoded image, as classifiers see it."""
        return 3 * self.classified_side**2


def base_shape(config: Config, assumptions: list[str]) -> Shape:
    """The base's sizes, from its configuration files; says what is assumed of a hub id."""
    source = resolve(config.base.name)
    if not os.path.isdir(source):
        family = FAMILIES[USUAL]
        assumptions.append(
            f"{source} has the shape of {family.title} (the hub is not asked for a plan)"
        )
        usual = family.published
        return Shape(
            family, dict(usual.network), usual.encoders, usual.shape.factor, usual.shape.tokens
        )
    read = reader_of(Path(source))
    family = family_of(source, read)
    files = [
        os.path.join(folder, name)
        for part in (*family.roles["vae"], *family.roles["text"])
        for folder, _, names in os.walk(f"{source}/{part}")
        for name in names
        if name.endswith(".safetensors")
    ]
    size = float(sum(os.path.getsize(name) for name in files))
    found = family.shape(read)
    network = dict(read(family.roles["model"][0]) or {})
    return Shape(family, network, size, found.factor, found.tokens)


def image_sizes(
    config: Config, splits: dict[str, int], groups: int, shape: Shape, assumptions: list[str]
) -> Images:
    """The run's images; says what is assumed of them."""
    known = config.dataset.stored_side
    real = known or PHOTOGRAPH
    if known is None:
        assumptions.append(f"real images of {real} x {real} pixels (dataset.image_size is not set)")
    made, selection = groups * config.synthesis.images_per_group, config.selection
    share = RULES[selection.rule].share(selection)
    return Images(
        splits,
        groups,
        made,
        round(made * share),
        real,
        config.synthesis.image_size or shape.side,
        config.classifier.image_size or real,
    )


def training_cost(training: Training | None, settings: FinetuneConfig, shape: Shape) -> UNetCost:
    """Cost of fine-tuning, which is done at the base's own size."""
    from raysynth.planning.denoiser_cost import unet_cost

    lora = training is not None and training.engine == "lora"
    targets = settings.targets if lora else None
    kept = settings.gradient_checkpointing
    cost = unet_cost(shape.unet, targets, settings.rank, kept, shape.tokens, shape.family)
    return cost if training is not None else replace(cost, trained=0)


def generation_flops(recipe: Recipe, config: Config, shape: Shape, images: Images) -> float:
    """FLOPs of a generator's images: adapters are folded, the size is `synthesis.image_size`."""
    from raysynth.planning.denoiser_cost import unet_cost

    settings = config.finetune
    sized = shape.at(images.generated_side)
    kept = settings.gradient_checkpointing
    cost = unet_cost(sized, None, settings.rank, kept, shape.tokens, shape.family)
    synthesis = config.synthesis
    copies = guide_of(synthesis.guidance, recipe.guidance_scale).copies
    evaluations = recipe.evaluations(synthesis.steps, copies, MASK_DRAWS)
    return images.candidates * evaluations * cost.forward


def rows_per_image(training: Training | None, settings: FinetuneConfig) -> int:
    """Images that pass the UNet for one of a step's micro-batch."""
    return settings.accumulation * (1 if training is None else passes_of(training, settings))


def training_memory(
    training: Training, settings: FinetuneConfig, cost: UNetCost, encoders: float
) -> Callable[[int], float]:
    """Adapters -> bytes of GPU memory of their training step."""
    budget = training.budget
    rows = budget.batch_size * passes_of(training, settings)
    copies = bool(budget.ema) + bool(settings.patience)
    per_adapter = (STATE_BYTES + 4 * copies) * cost.trained + rows * cost.activations
    lora = training.engine == "lora"
    base = FRAMEWORK_BYTES + encoders + (2 * cost.parameters if lora else 0)
    return lambda adapters: base + adapters * per_adapter


def most_at_once(memory: Callable[[int], float], budget: float, lora: bool) -> int:
    """Adapters whose step fits; a full fine-tuning trains one at a time."""
    one = memory(1) <= budget
    if not one or not lora:
        return int(one)
    return 1 + int((budget - memory(1)) // (memory(2) - memory(1)))


def classifier_flops(config: Config, images: Images) -> float:
    """FLOPs of all classifiers: their steps, evaluations on the way and predictions of test."""
    forward = RESNET_50_FLOPS * (images.classified_side / 224) ** 2
    learnt, seen = 0.0, 0.0
    for plan, times in trainings(config):
        both = passes(plan, config.classifier.batch_size, images)
        learnt, seen = learnt + times * both[0], seen + times * both[1]
    others, own = config.references, config.classifier
    measured = len(others.names) * others.seeds + (len(own.mixtures) + 1) * own.seeds
    seen += measured * images.splits["test"]
    return forward * (3 * learnt + seen)


def trainings(config: Config) -> list[tuple[Plan, int]]:
    """The classifiers' trainings of a run: (plan, how often); the search's all to their end."""
    search, classifier = config.search, config.classifier
    references = config.references.settled(classifier)
    mixed = config.references.for_mixtures(classifier)
    found = _tuned(classifier.mixtures, mixed, classifier.seeds)
    found += _tuned(references.names, references, references.seeds)
    chosen, grid = configured(classifier), search.heads
    if config.generator == AUTO:
        from raysynth.selection.by_validation import SEEDS

        composed = len(candidates(config)) + 1
        found.append((plan_of(chosen, classifier, heads=grid), SEEDS * composed))
    if search.trials:
        searched = {"steps": sum(search.steps) // 2, "ratio": max(search.ratios)}
        chosen |= searched
        times = search.trials if searched["steps"] else 1
        found.append((plan_of(chosen, classifier, heads=grid), times))
    own = plan_of(chosen, classifier)
    return [*found, (own, 1 if own.frozen else classifier.seeds)]


def passes(plan: Plan, batch: int, images: Images) -> tuple[float, float]:
    """Images that a training learns from, and those that it only looks at, at its evaluations."""
    from raysynth.training.fit import evaluation_steps

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


def storage_bytes(images: Images, weights: float, generators: Sequence[Recipe]) -> dict[str, float]:
    """What lies in the run's folder; `weights`: bytes of all adapters; `generators`: that draw.

    Of several, the chosen groups' images are copied into one more table.
    """
    real, made = (side**2 * PNG_BYTES for side in (images.real_side, images.generated_side))
    sets = len(generators) + (len(generators) > 1)
    found = {
        "real": sum(images.splits.values()) * real,
        "synthetic": sets * images.candidates * made,
        "adapters": weights,
    }
    edits = sum(recipe.edits for recipe in generators)
    if edits:
        found["sources, until all are edited"] = edits * images.candidates * real
    return found


def host_bytes(config: Config, images: Images) -> dict[str, float]:
    """Main memory of the classification stages: their driver, Ray's object store, a worker."""
    driver = images.shared_bytes
    if config.generator == AUTO:  # all candidates' images beside those that are composed of them
        driver += len(candidates(config)) * images.kept * images.image_bytes
    return {
        "driver": driver,
        "object store": images.shared_bytes,
        "worker": float(images.splits["test"] * images.image_bytes),
    }


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


def _tuned(names: Sequence[str], config: ReferencesConfig, seeds: int) -> list[tuple[Plan, int]]:
    """Every setting of every reference or mixture once, then the further seeds of the best."""
    from raysynth.references.reference import every_setting, merged

    tried = every_setting(names, config)
    one_each = {name: replace(plan, seed=1) for name, _, plan in tried}
    further = [(plan, seeds - 1) for plan in one_each.values()]
    return [*((plan, 1) for plan in merged(plan for _, _, plan in tried)), *further]
