"""Which attribute an image shows, by CLIP: zero-shot, among the words of its class's groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysynth.groups.groups import Groups
from raysynth.groups.prompts import spoken
from raysynth.groups.settings import PromptConfig

if TYPE_CHECKING:
    from raysynth.models.clip import Clip


@dataclass(frozen=True)
class AttributeJudge:
    """CLIP with the prompts of all groups."""

    clip: Clip
    groups: Groups
    texts: NDArray[np.float32]
    """[G, D] embeddings of the groups' prompts."""

    def __call__(self, pixels: np.ndarray, group: np.ndarray) -> NDArray[np.float64]:
        """[B, A] probabilities of the attributes of images [B, side, side, 3] and their groups."""
        scale = float(self.clip.model.logit_scale.detach().exp())
        return probabilities(self.clip.images(pixels) @ self.texts.T, group, self.groups, scale)


def judge_of(clip: Clip, groups: Groups, prompts: PromptConfig) -> AttributeJudge:
    """The judge of a data set, which is asked in the prompts' own words if they name attributes."""
    said = prompts if "attribute" in prompts.fields else PromptConfig()
    texts = [spoken(said, groups, g, token="") for g in range(groups.count)]
    return AttributeJudge(clip, groups, clip.texts(texts))


def probabilities(
    cosines: np.ndarray, group: np.ndarray, groups: Groups, scale: float
) -> NDArray[np.float64]:
    """[B, A] softmax over the attributes of each image's class, of [B, G] cosines times a scale."""
    width = len(groups.attribute_names)
    first = (np.asarray(group) // width * width)[:, None]
    own = np.take_along_axis(cosines, first + np.arange(width), axis=1).astype(np.float64) * scale
    likely = np.exp(own - own.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = likely / likely.sum(axis=1, keepdims=True)
    return found
