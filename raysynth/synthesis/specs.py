"""What is to be generated: one row per candidate image, decided before any image exists."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysynth.config import Config
from raysynth.errors import StageError
from raysynth.finetune.plan import Adapter
from raysynth.groups import Groups, aligned_groups
from raysynth.prompts import spoken
from raysynth.tables import SYNTHETIC

ROW = pa.field("row", pa.int64())
"""Position in the plan, a name for the image that fits in eight bytes."""
SPECS = pa.schema(
    [
        ROW,
        *(
            SYNTHETIC.field(name)
            for name in (
                *("id", "label", "attribute", "group", "cluster", "generator", "adapter"),
                *("prompt", "negative_prompt", "seed", "guidance_scale", "steps"),
            )
        ),
    ]
)


@dataclass(frozen=True)
class Source:
    """One model speaking for a group: its share of the group's candidates is a row block."""

    group: int
    cluster: int
    adapter: str
    prompt: str
    negative_prompt: str


def plan_specs(
    config: Config, adapters: Sequence[Adapter], groups: Groups, counts: Sequence[int] | np.ndarray
) -> pa.Table:
    """The specs of a run, sorted by group, then id.

    Every group gets `synthesis.images_per_group` candidates, shared equally by its clusters: a
    small cluster is a rare look, and equal shares keep it (Basu et al. do not publish theirs).

    Parameters
    ----------
    adapters : what fine-tuning produced; ignored with `finetune.engine=none`.
    counts : [G] training images per group; the largest of a class is its aligned group.

    Raises
    ------
    StageError
        If a group has no adapter and its class's aligned group has none either.
    """
    tables, rows = [], 0
    for group in range(groups.count):
        sources = group_sources(config, adapters, groups, counts, group)
        count, rest = divmod(config.synthesis.images_per_group, len(sources))
        for number, source in enumerate(sources):
            tables.append(_table(config, groups, source, rows, count + (number < rest)))
            rows += tables[-1].num_rows
    return pa.concat_tables(tables)


def group_sources(
    config: Config,
    adapters: Sequence[Adapter],
    groups: Groups,
    counts: Sequence[int] | np.ndarray,
    group: int,
) -> list[Source]:
    """The models that generate a group, with their prompts.

    A group without adapters of its own (fewer than `finetune.min_images` images) takes those of
    its class's aligned group: attribute word swapped, rare token dropped, the source's attribute
    as negative prompt (Basu et al., arXiv 2511.08711, their rule at severity 0.999).
    """
    prompts = config.prompts
    if config.finetune.engine == "none":
        plain = spoken(prompts, groups, group, token="")
        return [Source(group, 0, "", plain, prompts.negative)]
    prompt = spoken(prompts, groups, group)
    if config.finetune.scope == "shared":
        return [Source(group, 0, adapter.name, prompt, prompts.negative) for adapter in adapters]
    own = _of_group(adapters, group)
    if own:
        return [Source(group, a.cluster, a.name, prompt, prompts.negative) for a in own]
    aligned = int(aligned_groups(np.asarray(counts), groups)[groups.label(group)])
    lent = _of_group(adapters, aligned)
    if not lent:
        raise StageError(
            f"synthesis: no adapter speaks for group {groups.name(group)} ({counts[group]} "
            "training images): neither it nor its class's aligned group "
            f"{groups.name(aligned)} has one; expected at least one fine-tuned adapter per class. "
            "Fix: run the fine-tuning stage again (it names its failures), or finetune.engine=none"
        )
    word = groups.attribute_words[groups.attribute(aligned)]
    negative = ", ".join(part for part in (prompts.negative, word) if part)
    swapped = spoken(prompts, groups, group, token="")
    return [Source(group, a.cluster, a.name, swapped, negative) for a in lent]


def image_seed(seed: int, group: int, cluster: int, index: int) -> int:
    """63-bit seed of one image, a function of (run seed, group, cluster, index) alone."""
    text = f"image/{seed}/{group}/{cluster}/{index}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _of_group(adapters: Sequence[Adapter], group: int) -> list[Adapter]:
    return sorted((a for a in adapters if a.group == group), key=lambda a: a.cluster)


def _table(config: Config, groups: Groups, source: Source, start: int, count: int) -> pa.Table:
    """The specs of a source's `count` images, in rows from `start` on."""
    group, cluster = source.group, source.cluster
    each = {
        "label": groups.label(group),
        "attribute": groups.attribute(group),
        "group": group,
        "cluster": cluster,
        "generator": config.generator,
        "adapter": source.adapter,
        "prompt": source.prompt,
        "negative_prompt": source.negative_prompt,
        "guidance_scale": config.synthesis.guidance_scale,
        "steps": config.synthesis.steps,
    }
    columns = {
        "row": pa.array(np.arange(start, start + count)),
        "id": pa.array([f"g{group}-c{cluster}-{index:06d}" for index in range(count)]),
        "seed": pa.array([image_seed(config.seed, group, cluster, i) for i in range(count)]),
    }
    return pa.table(
        [
            columns[field.name]
            if field.name in columns
            else pa.repeat(pa.scalar(each[field.name], field.type), count)
            for field in SPECS
        ],
        schema=SPECS,
    )
