"""dmis: the base model, fine-tuned on known and unknown attributes, says what unknown images show.

An image of unknown attribute is learnt without it at first, then under the mixture of what the
model says under each, where that is sure. The attributes that the data set gives are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import DataError
from raysynth.grouping.method import Grouped, Method, Passes, Ungrouped, attributes
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.groups.prompts import check_attribute
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Count, Rate, Section, Share, decides, knob
from raysynth.models.settings import BaseConfigSection, base_of

PUBLISHED: dict[str, Any] = {
    "warm_up": 0.0,
    "confidence": 0.0,
    "classification_weight": 1.0,
    "temperature": "elbo",
    "prior": "counts",
    "hard": False,
}
"""What they do. Their steps, batches and rates are of models trained from nothing."""


class DmisKnobs(Section):
    """How the model is trained, and from when on an unknown attribute is learnt."""

    steps: Count = knob(200, "Optimizer steps of all weights of the base (theirs: from nothing).")
    batch_size: Annotated[int, Field(ge=2)] = knob(
        32, "Images per step, half of them of unknown attribute."
    )
    learning_rate: Rate = knob(4e-4, "Peak learning rate.")
    warm_up: Share = knob(
        0.5, "Share of the steps in which unknown images are learnt without attribute (theirs: 0)."
    )
    confidence: Share = knob(
        0.9, "Largest share of the posterior from which on its mixture is learnt (theirs: 0)."
    )
    classification_weight: Annotated[float, Field(ge=0.0)] = knob(
        0.3, "Weight of the classification loss, times the temperature (theirs: 1, alone)."
    )
    temperature: Rate | Literal["auto", "elbo"] = knob(
        "auto",
        "What mean errors are divided by; auto: under which known attributes are likeliest; elbo: "
        "the lower bound's own, 2 / size of a latent (theirs).",
    )
    prior: Literal["counts", "uniform"] = knob(
        "counts",
        "Of the attributes in every class before an image is seen: as those that are known "
        "(theirs), or all alike, where these were not drawn at random.",
    )
    hard: bool = knob(
        False, "The likeliest attribute alone instead of the mixture: gated pseudo-labels."
    )
    published: bool = knob(
        False,
        "Their settings of the six knobs above, and posteriors by a moving average of the weights.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        both = sorted(self.model_fields_set & set(PUBLISHED))
        if self.published and both:
            raise ValueError(
                f"published: true sets {', '.join(both)} too, got both. Fix: remove one of them"
            )
        return self

    def settled(self) -> DmisKnobs:
        """As they are trained with."""
        return self.model_copy(update=PUBLISHED) if self.published else self


def _check(config: Any, knobs: DmisKnobs) -> None:
    from raysynth.models.sources import check_base

    check_attribute(config.prompts, "the base would be told nothing of what dmis infers")
    check_base(config.base)


def _check_images(knobs: DmisKnobs, groups: Groups, counts: np.ndarray) -> None:
    if len(groups.attribute_names) < 2:
        raise DataError(
            "grouping.method=dmis: the data set gives no two attributes to infer among; expected "
            "some images of each. Fix: fill in the column `attribute` of some, or "
            "grouping.method=conflict_mining, which needs none"
        )
    if never := [groups.name(g) for g in np.flatnonzero(counts[:, :-1].ravel() == 0).tolist()]:
        raise DataError(
            f"grouping.method=dmis: no training image of {', '.join(never[:8])} has its attribute; "
            "expected one or more of every label with every attribute, from which the others are "
            "inferred. Fix: label some of them, or grouping.method=conflict_mining, which needs "
            "none"
        )


def _warn(config: Any, knobs: DmisKnobs, groups: Groups) -> list[str]:
    """Attribute words of which the embedded base's frozen text encoder says little."""
    from raysynth.models.sources import strange_words

    if config.base.name != "embedded" or not (strange := strange_words(groups.attribute_words)):
        return []
    return [
        f"grouping.method=dmis: {', '.join(strange)}: no word of the embedded base, which spells "
        "it and can hardly learn what it means. Fix: dataset.attribute_words of words such as "
        "grass, gravel, plain, red, blue"
    ]


def _group(images: Ungrouped, knobs: DmisKnobs) -> Grouped:
    import ray

    from raysynth.cluster.tasks import on_worker
    from raysynth.grouping.generative import Asked, inferred

    config, groups = images.config, images.groups
    given = pa.concat_tables(images.parts("id", "attribute"), promote_options="permissive")
    given = given.filter(pc.not_equal(given["attribute"], UNKNOWN))
    told = (config[BaseConfigSection], config[PromptConfig], knobs.settled(), images.seed)
    resources = config[ResourcesConfig]
    task = on_worker(inferred, resources)
    asked = Asked(images.real, groups, images.splits, *told)
    found = ray.get(task.remote(asked, resources.cpus_per_worker))
    known = given["attribute"].to_numpy()
    ids = given["id"].to_pylist() + found.ids
    posterior = np.concatenate([np.eye(len(groups.attribute_names))[known], found.posterior])
    rows = attributes(
        ids, posterior.argmax(1).tolist(), posterior, np.arange(len(ids)) < len(given)
    )
    facts = {"temperature": found.temperature, "inferred": found.counts}
    return Grouped(groups.attribute_names, groups.attribute_words, rows, facts)


def _decided_by(config: Any) -> Mapping[str, Any]:
    """The base and what it is told."""
    return {"base": base_of(config.base), "prompts": decides(config.prompts, "negative")}


def _passes(knobs: DmisKnobs, attributes: int, images: int) -> Passes:
    """As if no training image's attribute were known."""
    from raysynth.grouping.generative import LOOKS, MIDDLE

    each = knobs.settled()
    learnt = each.steps - round(each.warm_up * each.steps)
    hidden = learnt * (each.batch_size // 2) * attributes
    looks = hidden * len(MIDDLE) + images * attributes * len(LOOKS)
    return Passes(each.steps * each.batch_size + hidden, looks)


PART = Method(
    title="Diffusion models from imprecise supervision",
    source="DMIS (Wu et al. 2025, arXiv 2510.03016); warm-up, gate and temperature are ours",
    group=_group,
    Knobs=DmisKnobs,
    decided_by=_decided_by,
    check=_check,
    check_images=_check_images,
    warn=_warn,
    passes=_passes,
)
