"""What `raysynth plan` says of captions: how many there are, how many are longer than is read."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysynth.config.config import Config
from raysynth.datasets.captions import CAPTION, caption_counts
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.groups.prompts import captioned, spoken
from raysynth.models.sources import resolve
from raysynth.planning.sizes import Shape


def told_of_captions(config: Config, groups: Groups, listing: pa.Table, shape: Shape) -> str:
    """Training images with captions, what they are asked for, prompts that are cut; "": none are.

    `groups`, `listing`: the data set's own; `shape`: the base's.
    """
    if config.dataset.captions is None:
        return ""
    own, images = caption_counts(listing)
    rows = listing.filter(pc.equal(listing["split"], "train"))
    group, said = rows["group"].to_numpy(), rows[CAPTION].to_pylist()
    # Of an attribute that is to be found, as if it were the first one.
    first = rows["label"].to_numpy() * len(groups.attribute_names)
    spoken_of = np.where(group == UNKNOWN, first, group).tolist()
    prompt = [spoken(config.prompts, groups, g) for g in range(groups.count)]
    each = zip(spoken_of, said, strict=True)
    asked = list(dict.fromkeys(captioned(config.prompts, prompt[g], c) for g, c in each if c))
    others = "" if own == images else f", {images - own:,} their group's prompt alone"
    return (
        f"{own:,} of {images:,} training images have one{others}; each is trained with its own, "
        f"e.g. {asked[0]!r}, and a group is drawn by those of its own images{_few(groups, rows)}; "
        f"{_cut(config, shape, asked)}"
    )


def _few(groups: Groups, rows: pa.Table) -> str:
    """The group of fewest different captions, of which all its images are drawn."""
    group, said = rows["group"].to_numpy(), np.array(rows[CAPTION].to_pylist(), object)
    different = [len(set(said[group == g].tolist()) - {""}) for g in range(groups.count)]
    least = int(np.argmin(different))
    known = group[group != UNKNOWN]
    return f" (fewest: {groups.name(least)}, {different[least]:,} different)" if len(known) else ""


def _cut(config: Config, shape: Shape, prompts: Sequence[str]) -> str:
    """How many prompts are longer than the base reads, where its tokenizers are at hand."""
    source = resolve(config.base.name)
    if not os.path.isdir(source):
        return "how many are longer than the base reads is known of a base.name that is a folder"
    from raysynth.models.loading import load_or_explain

    family = shape.family
    longest = np.zeros(len(prompts), np.int64)
    for part in (name for name in family.roles["text"] if "tokenizer" in name):

        def load(part: str = part) -> object:
            return family.kind(part).from_pretrained(source, subfolder=part)

        tokenizer = load_or_explain(f"base.name: {part}", source, load)
        longest = np.maximum(longest, family.lengths(tokenizer, prompts))
    many = int((longest > shape.tokens).sum())
    if not many:
        return f"none is longer than the {shape.tokens} tokens that the base reads"
    return (
        f"{many:,} of {len(prompts):,} different prompts are longer than the {shape.tokens} tokens "
        f"that the base reads ({int(longest.max()):,} at most), and their ends are cut"
    )
