"""conflict_mining: a network that learns the bias misreads what goes against it; CLIP names both.

No attribute label is read. Per class, the images that it misreads most are one side, the others the
other; what the sides show is said by two words of a vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import ConfigError, DataError
from raysynth.grouping.method import Grouped, Method, Passes, Ungrouped, attributes, no_passes
from raysynth.grouping.settings import GROUPING
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import check_attribute
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Count, Named, Place, Rate, Section, Share, decides, knob
from raysynth.models.settings import BaseConfigSection, base_of, clip_of
from raysynth.networks.settings import FINAL, OWN_TRAINING

EMBEDDED_WORDS = (
    "grass", "gravel", "brick", "white", "gray", "black", "red", "green", "blue", "yellow", "brown",
)  # fmt: skip
"""The grounds that the embedded models were told of."""
KEY = "grouping.method={name: conflict_mining, vocabulary: [forest, lake, ...]}"
CAPTIONER = "grouping.method: captioner"


class ConflictMiningKnobs(Section):
    """How the biased network is trained, how many images conflict, and what they may show."""

    q: Annotated[float, Field(gt=0.0, le=1.0)] = knob(
        0.7, "Generalised cross-entropy: towards 1 what is hard to learn counts less (theirs: 0.7)."
    )
    steps: Count = knob(300, "Optimizer steps of the biased network.")
    learning_rate: Rate | None = knob(
        None, "Its peak learning rate. None: the network's own, as classifier.learning_rate."
    )
    top_k: Count | Literal["auto"] = knob(
        "auto",
        "Images of each class that conflict (theirs: 100 or 200); auto: as many as separate best.",
    )
    least: Count = knob(2, "auto: images of a class that conflict at least.")
    most: Annotated[Share, Field(gt=0.0, le=0.5)] = knob(
        0.2, "auto: share of a class that conflicts at most."
    )
    biased_on: Literal["real", "synthetic"] = knob(
        "real",
        "What the biased network learns: the training images, or images that the base draws of "
        "each class once it has learnt them by class alone, among which there are none to learn by "
        "heart (Diffusing DeBias). The training images are ranked by it in both.",
    )
    base_steps: Count = knob(240, "synthetic: optimizer steps of the base, of 16 images.")
    images: Annotated[int, Field(ge=2)] = knob(
        1000, "synthetic: images that are drawn, of all classes together."
    )
    guidance_scale: Annotated[float, Field(ge=0)] = knob(
        2.0, "synthetic: CFG weight that they are drawn with; <= 1: off."
    )
    vocabulary: tuple[Named, ...] | None = knob(
        None,
        "Words of which two say what aligned and conflicting images show, spoken as {attribute} of "
        "prompts.template. None: the captioner's, or the embedded models' grounds.",
    )
    captioner: Place | None = knob(
        None,
        "Hub id or folder of a transformers image-to-text model, of whose captions (three of each "
        "image) the most frequent words are the vocabulary (theirs: BLIP).",
    )
    captioner_revision: Named | None = knob(
        None, "Commit of a captioner of the hub; without it a hub id is refused."
    )

    @field_validator("vocabulary")
    @classmethod
    def _several(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words is not None and (len(set(words)) < max(2, len(words)) or not all(words)):
            raise ValueError(f"two or more different words expected, got {list(words)}")
        return words

    @model_validator(mode="after")
    def _one_source(self) -> ConflictMiningKnobs:
        if self.vocabulary and self.captioner:
            raise ValueError(
                "vocabulary and captioner both name words; expected one. Fix: leave one out"
            )
        return self


def _words(config: Any, knobs: ConflictMiningKnobs) -> tuple[str, ...] | None:
    """The vocabulary; none of a captioner, which is asked later; None where there is neither."""
    if knobs.captioner:
        return ()
    embedded = config[BaseConfigSection].clip == "embedded"
    return knobs.vocabulary or (EMBEDDED_WORDS if embedded else None)


def _check(config: Any, knobs: ConflictMiningKnobs) -> None:
    from raysynth.models.sources import check_base, check_clip

    if _words(config, knobs) is None:
        raise ConfigError(
            "grouping.method=conflict_mining: no vocabulary, and what base.clip="
            f"{config.base.clip} knows of these images cannot be guessed; expected words for what "
            f"their attribute may be, or a captioner. Fix: {KEY}"
        )
    check_attribute(config.prompts, "prompts would not say what conflict_mining finds")
    check_clip(config.base)
    if knobs.captioner:
        _check_captioner(knobs.captioner, knobs.captioner_revision)
    if knobs.biased_on == "synthetic":
        check_base(config.base)


def _check_captioner(name: str, revision: str | None) -> None:
    from raysynth.models.hub import COMMIT
    from raysynth.models.sources import check_captioner, is_path

    check_captioner(name, CAPTIONER)
    if not is_path(name) and not re.fullmatch(COMMIT, revision or ""):
        raise ConfigError(
            f"{CAPTIONER}: {name} is of the hub, and captioner_revision is {revision!r}; expected "
            "the commit (40 digits): what it says names the groups. Fix: captioner_revision="
            "<commit>, or download the model and give its folder"
        )


def _check_images(knobs: ConflictMiningKnobs, groups: Groups, counts: np.ndarray) -> None:
    needed, counts = 2 * knobs.least, counts.sum(axis=1)
    if (few := np.flatnonzero(counts < needed)).size:
        sizes = ", ".join(f"{groups.label_names[y]}: {counts[y]}" for y in few.tolist())
        raise DataError(
            f"grouping.method=conflict_mining: fewer than {needed} training images of a class "
            f"({sizes}); expected 2 x least={knobs.least} or more. Fix: more images, or "
            f"grouping.method={{name: conflict_mining, least: {max(1, int(counts.min()) // 2)}}}"
        )


def _group(images: Ungrouped, knobs: ConflictMiningKnobs) -> Grouped:
    import ray

    from raysynth.cluster.tasks import on_worker
    from raysynth.grouping.biased import Asked, mined
    from raysynth.networks.build import blueprint_of

    config, resources = images.config, images.config[ResourcesConfig]
    words = _words(config, knobs)
    assert words is not None  # refused before
    told = (blueprint_of(config), config[PromptConfig], knobs, words)
    asked = Asked(images.real, images.groups, images.splits, *told)
    task = on_worker(mined, resources)
    found = ray.get(task.remote(asked, resources.cpus_per_worker))
    rows = attributes(found.ids, found.attribute.tolist(), found.posterior)
    return Grouped(found.words, found.words, rows, found.facts)


def _decided_by(config: Any) -> Mapping[str, Any]:
    """The network and how images reach it, what CLIP is asked, and by which CLIP.

    And the base that draws, and its rare token.
    """
    network = decides(config.classifier, "flip", "crop_padding", *OWN_TRAINING, *FINAL)
    knobs = config.grouping.method.knobs(GROUPING)
    drawn = {"base": base_of(config.base), "token": config.prompts.token}
    return {
        "network": network,
        "clip": clip_of(config.base),
        "template": config.prompts.template,
        **(drawn if knobs.biased_on == "synthetic" else {}),
    }


def _passes(knobs: ConflictMiningKnobs, attributes: int, images: int) -> Passes:
    from raysynth.grouping.generated import BATCH, evaluations

    if knobs.biased_on == "real":
        return no_passes(knobs, attributes, images)
    drawn = knobs.images * evaluations(knobs.guidance_scale)
    return Passes(knobs.base_steps * BATCH, drawn, adapters=True)


PART = Method(
    title="Conflict mining",
    source=(
        "DiffuBias (Ko et al. 2024, arXiv 2411.16079); `synthetic`: Diffusing DeBias (Ciranni et "
        "al. 2025, arXiv 2502.09564); number, confidence and words are ours"
    ),
    group=_group,
    Knobs=ConflictMiningKnobs,
    decided_by=_decided_by,
    check=_check,
    check_images=_check_images,
    steps=lambda knobs: knobs.steps,
    passes=_passes,
)
