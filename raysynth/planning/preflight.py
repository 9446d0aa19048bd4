"""What is refused before Ray starts: a configuration that cannot work, a machine too small for it.

The configuration's part is `raysynth plan`'s too, which may run on a laptop for a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from raysynth.cluster.capacity import check_before_ray
from raysynth.config.config import Config
from raysynth.datasets.garments import CLASSES
from raysynth.generators.lending import lending_group, settled, trained_groups
from raysynth.generators.recipe import candidates, recipe_of
from raysynth.grouping.settings import GROUPING
from raysynth.groups.groups import Groups
from raysynth.method import nodes_of
from raysynth.models.settings import LITE
from raysynth.stages.graph import Node
from raysynth.stages.stage import function

LITE_LEAST = 64
"""Side in pixels below which EfficientNet-Lite0 tells little (docs/decisions/090-imagenet.md)."""


def preflight(config: Config) -> tuple[Groups, pa.Table]:
    """Refuse what cannot work, here or anywhere; the groups and the listing of what can.

    Raises
    ------
    ConfigError
        Too few CPUs or GPUs on this machine, no cluster at the address; or as
        `check_configuration`.
    DataError, ModelError
        As `check_configuration`.
    """
    check_before_ray(config)
    return check_configuration(config)


def check_configuration(config: Config) -> tuple[Groups, pa.Table]:
    """Refuse what cannot work on any machine; the groups and the listing of what can.

    No weight and no image is read, only the headers of a model folder's safetensors files. Ray is
    not imported; diffusers and transformers only for models that are folders.

    Raises
    ------
    ConfigError, DataError, ModelError
        A data set, base model, encoder or backbone that is not what it should be; a solver that
        does not fit the base; a group with fewer images than clusters, or than an accuracy needs;
        an override of an adapter that there cannot be.
    """
    check_stages(config)
    nodes = nodes_of(config)

    from raysynth.datasets.listing import known_counts, list_dataset, split_counts

    _, groups, listing = list_dataset(config.dataset, config.seed)
    # Found groups are looked at by the stages themselves, when they are there.
    finding = [node for node in nodes if node.stage.stands_for]
    counts = known_counts(listing, groups) if finding else split_counts(listing, groups)["train"]
    for check, each in _declared(finding or nodes, "check_groups"):
        check(each, groups, counts)
    return groups, listing


def check_stages(config: Config) -> None:
    """Refuse what a stage cannot work with by its configuration: models that are folders among it.

    What other nodes of a cluster have to say of these, `raysynth doctor` asks them.

    Raises
    ------
    ConfigError, ModelError
        As `check_configuration`, without the data set's.
    """
    for check, each in _declared(nodes_of(config), "check"):
        check(each)


def _declared(nodes: Sequence[Node], kind: str) -> list[tuple[Callable[..., None], Config]]:
    """The checks of the stages, each once for each generator.

    Imported one by one: torch takes seconds, and a wrong model's name needs none.
    """
    found = {(getattr(node.stage, kind), node.variant): node.config for node in nodes}
    return [(function(name), config) for (name, _), config in found.items() if name]


def warnings_of(config: Config) -> list[str]:
    """What can be run and is hardly meant.

    The embedded models with other images than garments; breeding where prompts name what for; tiny
    images for a network of large ones.
    """
    found = []
    side = config.classifier.image_size or config.dataset.stored_side
    if config.classifier.backbone == LITE and side is not None and side < LITE_LEAST:
        found.append(
            f"classifier.backbone={LITE}: would see images of {side} x {side} pixels, but knows "
            "those of 224 x 224, and tells little of so few. Fix: classifier.image_size=96, to "
            "which images are enlarged"
        )
    if config.synthesis.rebalance.on and "attribute" in config.prompts.fields:
        found.append(
            f"synthesis.rebalance: prompts.template={config.prompts.template!r} names the "
            "attribute, so that most images show it as they are drawn, and breeding makes them "
            "alike for little. Fix: synthesis.rebalance.judge=none, or a template without "
            "{attribute}"
        )
    embedded = [f"base.{k}" for k in ("name", "clip") if getattr(config.base, k) == "embedded"]
    spoken = set((config.dataset.label_words or {}).values())
    known = bool(config.dataset.garments) or bool(spoken and spoken <= set(CLASSES))
    if embedded and not known:
        found.append(
            f"{' and '.join(embedded)}: the embedded models know ten kinds of garments at 32 x 32 "
            f"pixels and nothing else; dataset.name={config.dataset.name} is strange to them. Fix: "
            "a Stable Diffusion for base.name and a CLIP for base.clip, by folder or hub id; or "
            "make both of these images: raysynth pretrain"
        )
    return found


def grouping_warnings(config: Config, groups: Groups) -> list[str]:
    """What the method that groups can work with and is hardly meant; `groups`: the data set's."""
    chosen = config.grouping.method
    return list(GROUPING[chosen.name].warn(config, chosen.knobs(GROUPING), groups))


def strange_lenders(config: Config, groups: Groups, counts: np.ndarray) -> list[str]:
    """Groups whose label neither the model that draws them has seen, nor the base knows a word for.

    Of what other bases than the embedded one know, nothing can be said.

    Parameters
    ----------
    counts : [G] training images per group.
    """
    if config.base.name != "embedded" or not config.grouping.is_given:
        return []
    found: dict[str, str] = {}
    for one in candidates(config):
        recipe = settled(recipe_of(one), counts)
        if recipe.training is None:
            continue
        for g in np.flatnonzero(~trained_groups(counts, recipe.min_images)).tolist():
            lender = lending_group(recipe, counts, groups, g)
            word = groups.label_words[groups.label(g)]
            if groups.label(lender) != groups.label(g) and word not in CLASSES:
                few = f"{counts[g]} training image(s), finetune.min_images={recipe.min_images}"
                found[groups.name(g)] = f"{groups.name(g)} ({few}) by that of {groups.name(lender)}"
    if not found:
        return []
    return [
        f"{'; '.join(found.values())}: drawn by a model that never saw its label, and "
        "base.name=embedded does not know the word, so its images will likely show the other label "
        "(the run looks at them, and stops where they do: selection.on_unfaithful). Fix: a base "
        "that knows the words, more images of the group, or synthesis.lender=label"
    ]
