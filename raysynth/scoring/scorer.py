"""Scorers: what is said of every candidate image, in columns of the synthetic table.

A scorer is a file of `raysynth/scoring/scorers`. It declares its columns, and opens in a generating
actor as a function of images; embeddings that several scorers need are made once (`Images`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from raysynth.clustering.settings import ClusteringConfig
from raysynth.errors import ConfigError
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Section
from raysynth.models.settings import CLIP, BaseConfigSection
from raysynth.registry import Chosen, Registry

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from raysynth.groups.groups import Groups
    from raysynth.models.clip import Clip
    from raysynth.models.denoiser import Denoiser
    from raysynth.models.encoder import Encoder


@dataclass(frozen=True)
class Scoring:
    """What scorers are opened with, in an actor."""

    base: BaseConfigSection
    clustering: ClusteringConfig
    prompts: PromptConfig
    groups: Groups
    clusters: str
    """The clustering stage's folder or URI: the real groups' centroids and embeddings."""
    adapters: str
    """The fine-tuning stage's folder or URI."""

    @cached_property
    def clip(self) -> Clip:
        """The run's CLIP, loaded once."""
        from raysynth.models.clip import load_clip

        return load_clip(self.base)

    @cached_property
    def encoder(self) -> Clip | Encoder:
        """What clusters and copies are found with: CLIP or `clustering.encoder`."""
        from raysynth.models.encoder import load_encoder

        name = self.clustering.encoder
        if name == CLIP:
            return self.clip
        return load_encoder(name, self.base, self.clustering.encoder_revision)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The base without any adapter, loaded once: beside the one that draws, which has them."""
        from raysynth.models.base import load_base
        from raysynth.models.denoiser import Denoiser
        from raysynth.models.loading import round_weights

        base = load_base(self.base, ("model", "text", "scheduler"))
        round_weights(base.model, base.dtype)
        return Denoiser(base, base.model)


@dataclass(frozen=True)
class Images:
    """A batch of candidates, and what models see in them, each computed when it is read."""

    pixels: np.ndarray
    """[B, side, side, 3] uint8."""
    scoring: Scoring
    latents: Tensor | None = None
    """[B, C, h, w] float32 what they were decoded from, on the device; None: not at hand."""

    @cached_property
    def clip(self) -> np.ndarray:
        """[B, D] CLIP's embeddings."""
        return self.scoring.clip.images(self.pixels)

    @cached_property
    def encoded(self) -> np.ndarray:
        """[B, D] embeddings in the space of clusters and copies."""
        encoder = self.scoring.encoder
        return self.clip if encoder is self.scoring.clip else encoder.images(self.pixels)


Score = Callable[[Images, "pa.Table"], Mapping[str, "pa.Array"]]
"""Images and their specs, [B] both, to [B] columns."""


class Scorer(Protocol):
    """One way to judge candidates; its file imports no torch before it is opened."""

    title: str
    source: str
    Knobs: type[Section]
    columns: pa.Schema

    def open(self, scoring: Scoring, knobs: Any) -> Score:
        """The function that scores, with its models and targets in memory."""


@runtime_checkable
class Prompted(Protocol):
    """A scorer that asks the base about the groups' prompts."""

    def evaluations(self, groups: int, knobs: Any) -> int:
        """Forwards of the base's network for one image, of so many groups."""


@runtime_checkable
class OfPrompts(Protocol):
    """A scorer that reads nothing but an image and its prompt: it needs no real images."""

    of_prompts: bool


SCORERS: Registry[Scorer] = Registry("raysynth.scoring.scorers", "scorer")
USUAL = ("clip", "copies")


@dataclass(frozen=True)
class Scorers:
    """The chosen scorers, open."""

    scoring: Scoring
    scores: Sequence[Score]

    def __call__(
        self, pixels: np.ndarray, specs: pa.Table, latents: Tensor | None = None
    ) -> dict[str, pa.Array]:
        """[B] columns of all scorers, of images [B, side, side, 3] uint8 and their latents."""
        images = Images(pixels, self.scoring, latents)
        found: dict[str, pa.Array] = {}
        for score in self.scores:
            found |= score(images, specs)
        return found


def open_scorers(chosen: Sequence[Chosen], scoring: Scoring) -> Scorers:
    """The scorers of `synthesis.scorers`, in order."""
    each = [SCORERS[one.name].open(scoring, one.knobs(SCORERS)) for one in chosen]
    return Scorers(scoring, each)


def evaluations_of(chosen: Sequence[Chosen], groups: int) -> int:
    """Forwards of the base's network that the scorers need for one image."""
    parts = [(SCORERS[one.name], one.knobs(SCORERS)) for one in chosen]
    return sum(
        part.evaluations(groups, knobs) for part, knobs in parts if isinstance(part, Prompted)
    )


def check_scorers(chosen: Sequence[Chosen], prompts: PromptConfig) -> None:
    """Refuse scorers that the prompts tell nothing; raises ConfigError."""
    for one in chosen:
        if isinstance(SCORERS[one.name], Prompted) and "attribute" not in prompts.fields:
            raise ConfigError(
                f"synthesis.scorers: {one.name} tells groups apart by their prompts; got "
                f"prompts.template={prompts.template!r}, expected one with {{attribute}}. Fix: "
                f"{PromptConfig().template!r}, or without this scorer"
            )
