"""What images are asked for where real ones have captions: their group's prompt and one of these.

A voice takes the captions of the real training images of its own group alone, or, where it is the
model of a cluster, of that cluster: a group of two images has two, and no other's. Each of its
images takes one by its number: every caption once before any comes again, in another order each
time, so that images say what the real ones show as often as these show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from raysynth.generators.lending import trained_groups
from raysynth.generators.recipe import Recipe
from raysynth.groups.prompts import captioned
from raysynth.groups.settings import PromptConfig
from raysynth.synthesis.specs import Voice


def with_captions(
    voices: Sequence[tuple[Voice, int]],
    prompts: PromptConfig,
    recipe: Recipe,
    clusters: pa.Table,
    counts: Sequence[int] | np.ndarray,
    captions: Mapping[str, str],
) -> list[tuple[Voice, int]]:
    """The voices with prompts of their own real images, where one of these has a caption.

    Images that are edited are asked for by the group's prompt alone: the captions of other images
    say what is not in them, and their own what is to be changed. A model of a single image draws by
    its caption.

    Parameters
    ----------
    recipe : settled.
    clusters : columns id, group, cluster; one row per training image.
    counts : [G] training images per group.
    captions : of training images by id.
    """
    if recipe.edits or not captions:
        return list(voices)
    ids = np.array(clusters["id"].to_pylist(), dtype=object)
    group, cluster = clusters["group"].to_numpy(), clusters["cluster"].to_numpy()
    known = trained_groups(np.asarray(counts), recipe.min_images)
    by_cluster = recipe.training is not None and recipe.training.scope == "group_cluster"
    found = []
    for voice, count in voices:
        mine = group == voice.group
        if by_cluster and known[voice.group]:  # else another's model speaks, of other clusters
            mine &= cluster == voice.cluster
        names = ids[mine] if voice.fused else np.sort(ids[mine])
        own = [captions.get(name, "") for name in names.tolist()]
        said = tuple(captioned(prompts, voice.prompt, caption) for caption in own)
        found.append((replace(voice, captions=said if any(own) else ()), count))
    return found
