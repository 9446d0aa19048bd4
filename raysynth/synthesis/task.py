"""What every generating actor is told once; specs say the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from raysynth.adapters.record import LoraShape
from raysynth.cluster.settings import ResourcesConfig
from raysynth.clustering.settings import ClusteringConfig
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import Recipe, recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import each_alone
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Sections
from raysynth.models.settings import BaseConfigSection
from raysynth.scoring.scorer import Scoring
from raysynth.sides import Sides
from raysynth.storage.marks import Maker
from raysynth.synthesis.contrast import Contrast
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.synthesis.way import Way

LINEAGE = pa.schema([("founder", pa.int32()), ("path", pa.string()), ("judged", pa.float32())])
"""Of images that are bred: the number of the founder, those of the children down to the image, and
what the judge gave its attribute (probability)."""
NOBODY = Maker()
WAY = Way()
"""The solver's own levels, from pure noise."""
PAYS_FROM = 30_000
"""Images of an actor from which on compiling by itself pays: a minute, for a third of the rest."""


class Sampler(Protocol):
    """What an actor does to a batch; `denoise`, `decode` and `score` hold the device, in turn."""

    def prepare(self, specs: pa.Table) -> Any:
        """All that can be done before the device is free."""

    def denoise(self, batch: Any) -> Any:
        """Latents; returns when the device has finished them."""

    def decode(self, latents: Any, specs: pa.Table) -> np.ndarray:
        """[B, side, side, 3] uint8 images."""

    def score(self, images: np.ndarray, specs: pa.Table, latents: Any) -> Mapping[str, pa.Array]:
        """[B] columns of the scorers, of images [B, side, side, 3] and what they came from."""


@dataclass(frozen=True)
class Drawing:
    """What images are drawn with."""

    base: BaseConfigSection
    synthesis: SynthesisConfig
    recipe: Recipe
    lora: LoraShape
    way: Way = WAY
    """From which noise, at which levels; from `levels.settled_way`."""
    experts: tuple[int, str] = (1, "mass")
    """`finetune.experts` and `experts_by`."""
    compiled: bool = False
    """Whether compiling the network for full batches was asked for, or pays by itself."""
    alone: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Prompt -> those of its label and its attribute alone; empty where guidance asks neither."""
    size: Sides | None = None
    """Height and width of the images, pixels; None: squares, see `synthesis.image_size`."""
    captioned: bool = False
    """Whether prompts have captions: many, each read by itself, and cut where they are too long."""

    @property
    def told(self) -> pa.Schema:
        """What specs say of an image besides what all say, in columns that its table keeps."""
        aims = [pa.field(name, pa.int32()) for name in self.way.aims]
        return pa.schema([*aims, *(LINEAGE if self.synthesis.rebalance.on else ())])

    @classmethod
    def of(
        cls,
        config: Sections,
        recipe: Recipe | None = None,
        way: Way = WAY,
        groups: Groups | None = None,
    ) -> Drawing:
        """Of a configuration.

        Parameters
        ----------
        recipe : where it is settled already.
        groups : of the data set, whose words guidance may ask for one by one; None: it does not.
        """
        tuned = config[FinetuneConfig]
        shape = LoraShape.of(tuned)
        base, synthesis = config[BaseConfigSection], config[SynthesisConfig]
        experts, recipe = (tuned.experts, tuned.experts_by), recipe or recipe_of(config)
        alone: Mapping[str, tuple[str, str]] = {}
        if groups and guide_of(synthesis.guidance, recipe.guidance_scale).alone:
            alone = each_alone(config[PromptConfig], groups)
        compiled = synthesis.compile is True
        return cls(base, synthesis, recipe, shape, way, experts, compiled, alone)


@dataclass(frozen=True)
class Task:
    """What an actor draws, how it is scored, and with what."""

    drawing: Drawing
    scoring: Scoring
    names: tuple[str, ...]
    """Adapters that the specs ask for."""
    resources: ResourcesConfig
    """What actors may ask of the cluster."""
    maker: Maker = NOBODY
    """What every image says that it is made by."""
    contrasts: tuple[Contrast, ...] | None = None
    """[G] of the images that are edited for each group; None: no masks."""
    sampler: Callable[[Task], Sampler] | None = None
    """Opens what samples, in the actor, where another than the base model stands in."""

    @property
    def unscored(self) -> Task:
        """The same without scorers, of images that are looked at and not kept."""
        plain = self.drawing.synthesis.model_copy(update={"scorers": ()})
        return replace(self, drawing=replace(self.drawing, synthesis=plain))

    @classmethod
    def of(
        cls,
        config: Sections,
        groups: Groups,
        adapters: str,
        names: tuple[str, ...],
        clusters: str,
        **given: Any,
    ) -> Task:
        """Of a configuration.

        Parameters
        ----------
        adapters, clusters : folders or URIs of the fine-tuning and the clustering stage.
        given : other fields; `recipe`, where it is settled already; `way`; `images`, how many
            there are to draw, by which `synthesis.compile: auto` is settled.
        """
        drawing = Drawing.of(config, given.pop("recipe", None), given.pop("way", WAY), groups)
        many = given.pop("images", 0) >= PAYS_FROM * drawing.synthesis.actors
        if drawing.synthesis.compile == "auto" and many:
            drawing = replace(drawing, compiled=True)
        sections = (config[BaseConfigSection], config[ClusteringConfig], config[PromptConfig])
        scoring = Scoring(*sections, groups, clusters, adapters)
        return cls(drawing, scoring, names, config[ResourcesConfig], **given)
