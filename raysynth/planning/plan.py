"""`raysynth plan`: what a run would do and need, before any cluster is touched.

Groups and images are counted from the listing; parameters, FLOPs and activations come from the
models' configurations (`costs`); hours are FLOPs over an assumed sustained rate. Every assumption
is printed beside the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from raysynth.adapters.record import Adapter
from raysynth.cluster.capacity import crowded
from raysynth.config.config import Config
from raysynth.datasets.listing import few_measured
from raysynth.finetune.jobs import Job, expected_jobs
from raysynth.generators.inputs import training_inputs
from raysynth.generators.lending import lending_group, settled, trained_groups
from raysynth.generators.recipe import AUTO, Recipe, candidates, recipe_of
from raysynth.groups.groups import Groups
from raysynth.method import nodes_of
from raysynth.models.quantisation import kept_as
from raysynth.planning import costs, sizes
from raysynth.planning.audit_cost import auditing
from raysynth.planning.captions import told_of_captions
from raysynth.planning.minutes import Minutes, minutes_of
from raysynth.planning.planned import GeneratorPlan, GroupPlan, Plan
from raysynth.planning.preflight import (
    check_configuration,
    grouping_warnings,
    strange_lenders,
    warnings_of,
)
from raysynth.planning.weights import held_bytes, network_bytes
from raysynth.scoring.scorer import evaluations_of
from raysynth.stages.stage import Cost, function
from raysynth.synthesis.specs import group_voices

TERAFLOPS = 60.0
LEFT_OUT = "GPU-hours leave out what CLIP and the autoencoder do, and DreamBooth's prior images"
"""Assumed sustained rate, TFLOP/s; an A100 multiplies bfloat16 at 312 at most."""


def plan_run(config: Config, teraflops: float = TERAFLOPS) -> Plan:
    """Plan a run; reads the data set's listing, one image and the base's configuration.

    Raises
    ------
    ConfigError, DataError, ModelError
        As the run itself would, before its first stage.
    """
    groups, listing = check_configuration(config)
    rate = f"{teraflops:g} TFLOP/s sustained per GPU (--tflops)"
    assumptions = [rate, LEFT_OUT, *grouping_warnings(config, groups)]
    own = groups
    groups, counts = sizes.planned_groups(config, groups, listing, assumptions)
    each: dict[str, Config] = {one.generator: one for one in candidates(config)}
    recipes = {name: settled(recipe_of(one), counts["train"]) for name, one in each.items()}
    shape = sizes.base_shape(config, assumptions)
    images = sizes.image_sizes(config, counts, groups, shape, assumptions, listing)
    generators: dict[str, GeneratorPlan] = {}
    for name, one in each.items():
        same = [n for n in generators if training_inputs(each[n]) == training_inputs(one)]
        lent_by = same[0] if same and recipes[name].training is not None else ""
        generators[name] = _generator(recipes[name], config, groups, counts, shape, lent_by)
    tuned = {name: _tuned(one) for name, one in generators.items()}
    bred = sizes.drawn_per_image(config, groups, counts["train"], assumptions)
    total = _total(config, costs.Sized(images, shape, recipes, tuned, bred))
    _assume(config, list(recipes.values()), generators, assumptions)
    assumptions += _judging(config, groups, shape, generators) + auditing(config, groups)
    assumptions += strange_lenders(config, groups, counts["train"]) + few_measured(counts, groups)
    minutes = minutes_of(config, total.flops, images)
    return Plan(
        generators=generators,
        gpu_hours={name: n / (teraflops * 1e12) / 3600 for name, n in total.flops.items()},
        storage_gb=_gb(total.storage),
        host_gb=_gb(total.host),
        store_bytes=_store(config, total),
        assumptions=_of_cpus(assumptions, minutes) + crowded(config.resources, total.host),
        minutes=minutes,
        captions=told_of_captions(config, own, listing, shape),
    )


def _tuned(one: GeneratorPlan) -> costs.Tuned:
    """What a generator's models cost."""
    return costs.Tuned(one.rows, one.forwards, one.adapters, bool(one.lent_by), one.cost)


def _store(config: Config, total: Cost) -> int:
    """Bytes of a local Ray's object store, if it has less; else 0."""
    needed = math.ceil(total.host["object store"])
    return needed if needed > config.resources.object_store_memory else 0


def _of_cpus(assumptions: list[str], minutes: Minutes | None) -> list[str]:
    """What is assumed of a run on CPUs: nothing of a GPU's rate, the first two."""
    return assumptions if minutes is None else assumptions[2:]


def _total(config: Config, sized: costs.Sized) -> Cost:
    """What the stages cost, each by itself, added up."""
    found = Cost()
    for node in nodes_of(config):
        if node.stage.cost:
            found += function(node.stage.cost)(node.config, sized)
    return found


def _generator(
    recipe: Recipe,
    config: Config,
    groups: Groups,
    splits: dict[str, np.ndarray],
    shape: sizes.Shape,
    lent_by: str,
) -> GeneratorPlan:
    """The plan of one generator; `splits`: split -> [G] images."""
    counts = splits["train"]
    training, settings = recipe.training, config.finetune
    adapters = expected_jobs(recipe, settings, config.prompts, config.clustering, groups, counts)
    cost, one, side_by_side = costs.training_cost(training, settings, shape), 0.0, {}
    if training is not None:
        held = held_bytes(config.base, training, settings, cost, shape)
        memory = costs.training_memory(training, settings, cost, held)
        share, lora = settings.memory_share, training.engine == "lora"
        one = memory(1) / 1e9
        side_by_side = {
            gb: costs.most_at_once(memory, gb * 1e9 * share, lora) for gb in costs.GPUS_GB
        }
    return GeneratorPlan(
        words=_in_words(recipe),
        groups=[_group(recipe, config, groups, splits, g, adapters) for g in range(groups.count)],
        adapters=len(adapters),
        steps=sum(adapter.steps for adapter in adapters),
        rows=sum(adapter.work for adapter in adapters) * costs.rows_per_image(training, settings),
        forwards=costs.forwards(training, settings, [adapter.work for adapter in adapters]),
        lent_by=lent_by,
        cost=cost,
        one_adapter_gb=one,
        side_by_side=side_by_side,
    )


def _group(
    recipe: Recipe,
    config: Config,
    groups: Groups,
    splits: dict[str, np.ndarray],
    g: int,
    jobs: list[Job],
) -> GroupPlan:
    """The plan of a group; `jobs`: the adapters of all."""
    adapters = sum(job.group == g for job in jobs)
    trained = [_as_trained(job, groups) for job in jobs]
    voice = group_voices(recipe, config.prompts, trained, groups, splits["train"], g)[0]
    return GroupPlan(
        groups.name(g),
        images=int(splits["train"][g]),
        validation=int(splits["validation"][g]),
        test=int(splits["test"][g]),
        adapters=adapters,
        model=_model(recipe, groups, splits["train"], g, adapters),
        synthetic=config.synthesis.images_per_group,
        prompt=voice.prompt,
    )


def _as_trained(job: Job, groups: Groups) -> Adapter:
    """The record that a job's adapter will have, as far as who speaks for whom needs it."""
    label = groups.label_names[job.label] if job.label >= 0 else ""
    attribute = groups.attribute_names[job.attribute] if job.attribute >= 0 else ""
    of = (job.scope, job.group, job.cluster, label, attribute)
    return Adapter(job.name, "", *of, "", len(job.ids), job.steps, 0.0)


def _in_words(recipe: Recipe) -> str:
    training, how = recipe.training, "edits real images" if recipe.edits else "draws from noise"
    if training is None:
        return f"{recipe.name}: the base model as it is; {how}"
    weights = "LoRA adapters" if training.engine == "lora" else "full weights"
    scope = training.scope.replace("_", "-")
    per = "for all groups" if scope == "all" else f"per {scope}"
    return f"{recipe.name}: {weights}, one {per}; {how}"


def _model(recipe: Recipe, groups: Groups, counts: np.ndarray, group: int, own: int) -> str:
    training = recipe.training
    if training is None:
        return "the base"
    if training.shared:
        name = "the shared one" if training.scope == "all" else f"the {training.scope}'s"
        enough = trained_groups(counts, recipe.min_images)[group]
        return name if enough else f"{name}, lent"
    if own:
        return f"{own} adapter{'s' * (own > 1)}"
    return f"{groups.name(lending_group(recipe, counts, groups, group))}'s"


def _judging(
    config: Config, groups: Groups, shape: sizes.Shape, generators: Mapping[str, GeneratorPlan]
) -> list[str]:
    """What scorers that ask the base's network take."""
    asked = evaluations_of(config.synthesis.scorers, groups.count)
    if not asked:
        return []
    held = max(network_bytes(config.base, one.cost, shape) for one in generators.values())
    return [
        f"scorers ask the UNet {asked} times per candidate (GPU-hours: scoring); each generating "
        f"actor holds another one for it, {held / 1e9:.2f} GB in "
        f"{kept_as(config.base)}"
    ]


def _assume(
    config: Config,
    recipes: list[Recipe],
    generators: dict[str, GeneratorPlan],
    assumptions: list[str],
) -> None:
    """Say what the numbers rest on."""
    scopes = {recipe.training.scope for recipe in recipes if recipe.training is not None}
    if not isinstance(config.clustering.k, int) and "group_cluster" in scopes:
        assumptions.append(
            f"clusters per group: the most that clustering.max_k={config.clustering.max_k} and "
            f"min_size={config.clustering.min_size} allow, equally large; silhouette may find fewer"
        )
    if config.generator == AUTO:
        assumptions.append(
            f"generator=auto: all candidates ({', '.join(generators)}) are trained and generate, "
            "equal models once; each, and their mix, trains classifiers"
        )
    assumptions += [
        f"classifiers: {costs.classifier_network(config)[0]} FLOPs at their image size, every "
        "trial to its end, with all evaluations, tunings and seeds",
        f"PNG takes {costs.PNG_BYTES:g} bytes per pixel",
        "host memory: training, validation and kept images as 8-bit pixels at the classifier's "
        "size; test images in the workers; the processes themselves come on top",
        *warnings_of(config),
    ]


def _gb(found: Mapping[str, float]) -> dict[str, float]:
    return {name: value / 1e9 for name, value in found.items()}
