"""What is to be generated: who speaks for which group, and what a row says of its image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.adapters.fused import drawn_name, weights_of
from raysynth.adapters.record import Adapter
from raysynth.errors import StageError
from raysynth.finetune.jobs import SHARED
from raysynth.generators.lending import class_lender, lending_group, trained_groups
from raysynth.generators.recipe import Recipe
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import spoken
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Sections
from raysynth.storage.tables import CANDIDATE
from raysynth.synthesis.guidance import NEGATIVE, guide_of
from raysynth.synthesis.settings import SynthesisConfig

ROW = pa.field("row_of_plan", pa.int64())
"""Position in the plan, a name for the image that fits in eight bytes."""
SPECS = pa.schema(
    [
        ROW,
        *(
            CANDIDATE.field(name)
            for name in (
                *("id", "label", "attribute", "group", "cluster", "generator", "adapter"),
                *("source", "prompt", "negative_prompt", "seed", "guidance_scale", "steps"),
            )
        ),
    ]
)

NONE: Mapping[str, Sequence[int]] = {}
CAPTIONS = 0xCA97
"""Salt of the order in which captions are taken."""


@dataclass(frozen=True)
class Asked:
    """What a run asks for."""

    recipe: Recipe
    """The generator's, settled for the data set's counts."""
    prompts: PromptConfig
    synthesis: SynthesisConfig
    seed: int

    @classmethod
    def of(cls, config: Sections, recipe: Recipe) -> Asked:
        """Of a configuration."""
        return cls(recipe, config[PromptConfig], config[SynthesisConfig], config.seed)


@dataclass(frozen=True)
class Voice:
    """One model speaking for a group: its share of the group's candidates is a row block."""

    group: int
    cluster: int
    adapter: str
    prompt: str
    negative_prompt: str
    fused: tuple[str, ...] = ()
    """Adapters of which each image is drawn by some together; `adapter` is "" then."""
    captions: tuple[str, ...] = ()
    """Prompts with captions, of which each image takes one; of `fused` adapters, theirs; none:
    `prompt` is what all are asked for."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """All that its images may need."""
        return self.fused or ((self.adapter,) if self.adapter else ())


def voices_of(
    asked: Asked, adapters: Sequence[Adapter], groups: Groups, counts: Sequence[int] | np.ndarray
) -> list[tuple[Voice, int]]:
    """Every voice of a run, by group and cluster, with its number of candidates."""
    found = []
    for group in range(groups.count):
        voices = group_voices(asked.recipe, asked.prompts, adapters, groups, counts, group)
        count, rest = divmod(asked.synthesis.images_per_group, len(voices))
        found += [(voice, count + (number < rest)) for number, voice in enumerate(voices)]
    return found


def group_voices(
    recipe: Recipe,
    prompts: PromptConfig,
    adapters: Sequence[Adapter],
    groups: Groups,
    counts: Sequence[int] | np.ndarray,
    group: int,
) -> list[Voice]:
    """The models that generate a group, with their prompts.

    A group that no model was trained on (fewer than `finetune.min_images` images) takes those of
    another, one word swapped and the rare token dropped. That is the aligned group of its class
    with `synthesis.lender: label`, its attribute's word as negative prompt (Basu et al., arXiv
    2511.08711, their rule at severity 0.999), or the largest group of its attribute, whose models
    have seen what the attribute looks like here. A model for all groups or for an attribute has
    learnt the attribute from other classes and speaks for the group as for the others: a negative
    prompt would drive its colours too far (docs/decisions/020-negative-prompt.md).

    The lender's label is never a negative prompt: it makes shapes purer than those of the groups
    that are not lent to, what lies between two labels is then drawn for one of them alone, and the
    attribute tells which (docs/results/outfits_lender.md).
    """
    counts = np.asarray(counts)
    plain = spoken(prompts, groups, group, token="")
    if recipe.training is None:
        return [Voice(group, 0, "", plain, prompts.negative)]
    own = _speaking_for(adapters, groups, group)
    enough = trained_groups(counts, recipe.min_images)
    known = enough[group]
    if recipe.training.scope in ("all", "attribute"):
        width = len(groups.attribute_names)
        known = enough.reshape(-1, width)[:, groups.attribute(group)].any()
    if own and known:
        prompt = spoken(prompts, groups, group) if recipe.token else plain
        return _voices(recipe, group, own, prompt, prompts.negative)
    of_class = class_lender(recipe, counts, groups, group)
    for lender in (lending_group(recipe, counts, groups, group), of_class):
        if lent := own or _speaking_for(adapters, groups, lender):
            same_class = groups.label(lender) == groups.label(group)
            word = groups.attribute_words[groups.attribute(lender)] if same_class else ""
            negative = ", ".join(part for part in (prompts.negative, word) if part)
            return _voices(recipe, group, lent, plain, negative)
    raise StageError(
        f"synthesis: no adapter speaks for group {groups.name(group)} ({counts[group]} training "
        f"images): neither it nor its class's aligned group {groups.name(of_class)} has one; "
        "expected at least one fine-tuned adapter per class. Fix: a smaller finetune.min_images, "
        "or generator=vanilla"
    )


def _voices(
    recipe: Recipe, group: int, models: Sequence[Adapter], prompt: str, negative: str
) -> list[Voice]:
    """A voice for each model; for models of single images one, which fuses them."""
    if recipe.training is not None and recipe.training.scope == "image":
        return [Voice(group, 0, "", prompt, negative, tuple(model.name for model in models))]
    return [Voice(group, max(a.cluster, 0), a.name, prompt, negative) for a in models]


def image_seed(seed: int, group: int, cluster: int, index: int) -> int:
    """63-bit seed of one image, a function of (run seed, group, cluster, index) alone."""
    text = f"image/{seed}/{group}/{cluster}/{index}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _speaking_for(adapters: Sequence[Adapter], groups: Groups, group: int) -> list[Adapter]:
    """The group's own models; else its class's or attribute's, or the one for all groups."""
    label = groups.label_names[groups.label(group)]
    attribute = groups.attribute_names[groups.attribute(group)]
    own = [a for a in adapters if a.group == group]
    shared = [
        a
        for a in adapters
        if a.group == SHARED and a.label in ("", label) and a.attribute in ("", attribute)
    ]
    return sorted(own or shared, key=lambda a: a.cluster)


def voice_specs(
    asked: Asked,
    groups: Groups,
    voice: Voice,
    numbers: np.ndarray,
    start: int = 0,
    sources: Sequence[str] | None = None,
    aims: Mapping[str, Sequence[int]] = NONE,
) -> pa.Table:
    """The specs of a voice's images of these numbers, in rows from `start` on.

    `sources`: of each; `aims`: as `plan.plan_specs`.
    """
    group, cluster, order = voice.group, voice.cluster, numbers.tolist()
    columns = {
        **_said(asked, groups, voice),
        ROW.name: range(start, start + len(order)),
        "id": [f"g{group}-c{cluster}-{n:06d}" for n in order],
        "source": sources or [""] * len(order),
        "seed": (seeds := [image_seed(asked.seed, group, cluster, n) for n in order]),
    }
    if voice.fused:
        together = asked.synthesis.fused
        columns["adapter"] = [drawn_name(voice.fused, together, seed) for seed in seeds]
    if voice.captions:
        columns["prompt"] = _captions_of(voice, asked.seed, numbers, columns["adapter"])
    table = pa.table(
        [
            pa.array(value, field.type)
            if isinstance(value := columns[field.name], list | range)
            else pa.repeat(pa.scalar(value, field.type), len(order))
            for field in SPECS
        ],
        schema=SPECS,
    )
    for name, of in aims.items():
        table = table.append_column(name, pa.array(aim_of(numbers, of[group])))
    return table


def _captions_of(
    voice: Voice, seed: int, numbers: np.ndarray, drawn_by: str | Sequence[str]
) -> list[str]:
    """The prompts of a voice's images of these numbers, a function of each number alone.

    In turn, shuffled anew by each turn; of images that are `drawn_by` fused adapters that of the
    first of them.
    """
    if voice.fused:
        of = dict(zip(voice.fused, voice.captions, strict=True))
        return [of[next(iter(weights_of(name)))] for name in drawn_by]
    turn, place = np.divmod(numbers.astype(np.int64), len(voice.captions))
    key = [seed, CAPTIONS, voice.group, voice.cluster]
    order = {
        n: np.random.default_rng([*key, n]).permutation(len(voice.captions))
        for n in np.unique(turn).tolist()
    }
    each = zip(turn.tolist(), place.tolist(), strict=True)
    return [voice.captions[order[n][k]] for n, k in each]


def _said(asked: Asked, groups: Groups, voice: Voice) -> dict[str, Any]:
    """What is the same of all images of a voice, by column."""
    scale = asked.recipe.guidance_scale
    negative = NEGATIVE in guide_of(asked.synthesis.guidance, scale).rows
    return {
        "label": groups.label(voice.group),
        "attribute": groups.attribute(voice.group),
        "group": voice.group,
        "cluster": voice.cluster,
        "generator": asked.recipe.name,
        "adapter": voice.adapter,
        "prompt": voice.prompt,
        "negative_prompt": voice.negative_prompt if negative else "",
        "guidance_scale": scale,
        "steps": asked.recipe.steps,
    }


def aim_of(numbers: np.ndarray, aims: int) -> np.ndarray:
    """[N] int32 aims that images take in turn, by their number in their voice; -1 without any."""
    turns = numbers % aims if aims else np.full(len(numbers), -1)
    return turns.astype(np.int32)
