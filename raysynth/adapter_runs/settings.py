"""The knobs of `raysynth train`: the sections that adapters are made by, and what is their own."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from raysynth.cluster.settings import ResourcesConfig
from raysynth.config.command import read_command, whole_path
from raysynth.config.ground import RunConfig
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import Training, recipe_of
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Place, knob
from raysynth.models.settings import BaseConfigSection
from raysynth.planning.proposal import GPU, run_name
from raysynth.registry import chosen_part
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.trackers.tracker import TRACKERS

GENERATOR = "lora"
"""Whose training it is."""
DEFAULTS: dict[str, Any] = {"finetune": {"min_images": 2, "preview_steps": 50}}
"""Where they are others than those of a run of the whole method."""
LARGE: dict[str, Any] = {"finetune": GPU["finetune"]}
"""The same, besides, with another base than the embedded one."""
IDLE = {
    "finetune": {
        "engine": "what is trained are adapters",
        "per": "there is one adapter for each folder",
        "oversample": "each adapter knows one folder",
        "terms": "terms compare what one model says of several groups",
        "experts": "an expert of some noise levels is no adapter by itself",
        "experts_share": "an expert of some noise levels is no adapter by itself",
        "experts_by": "an expert of some noise levels is no adapter by itself",
    }
}
"""Section -> knob that a run of adapters has no use for -> why."""
FIELDS = ("name",)
"""What `caption` may speak of."""


class TrainConfig(RunConfig):
    """One run of `raysynth train`."""

    command: Literal["train"] = Field("train", description="What wrote this configuration.")
    images: Place = Field(description="Folder or URI of folders of images.")
    caption: str = Field(
        "a photo of {name}",
        description="Prompt of images that have no caption of their own; {name}: the folder's, "
        "underscores as spaces.",
    )
    aspect_ratio: float = Field(
        1.0,
        ge=1,
        le=8,
        description="Longer side of images over the shorter one, at most; what is beyond it is cut "
        "off. 1: every image's centre square. More: images are trained in their own proportions, "
        "at the nearest of sizes of no more pixels than the base's square (aspect-ratio buckets).",
    )
    base: BaseConfigSection = Field(default_factory=BaseConfigSection)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    trackers: tuple[chosen_part(TRACKERS), ...] = knob(  # type: ignore[valid-type]
        ("tensorboard",), "Where runs tell how far they are, as in a run of the method.", width=True
    )

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        spoken(self.caption, "x")
        if self.aspect_ratio > 1 and self.training.budget.prior_weight:
            raise ValueError(
                f"aspect_ratio={self.aspect_ratio:g} with finetune.prior_weight: prior images are "
                "squares of the base's. Fix: leave one of them out"
            )
        return self

    @property
    def generator(self) -> str:
        """The generator whose training it is, as rooms ask for it."""
        return GENERATOR

    @property
    def synthesis(self) -> SynthesisConfig:
        """Nothing is drawn: as it comes."""
        return SynthesisConfig()

    @property
    def prompts(self) -> PromptConfig:
        """Prompts are captions: as it comes."""
        return PromptConfig()

    @property
    def training(self) -> Training:
        """How adapters are trained, every number settled."""
        found = recipe_of(self).training
        assert found is not None, GENERATOR
        return found

    @property
    def sources(self) -> dict[str, str]:
        """The folder of folders."""
        return {"FOLDER": self.images}


def spoken(template: str, name: str) -> str:
    """The prompt of a folder's images; raises ValueError for a template of anything else."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"caption: {error}; write {{{{ for a brace") from None
    for _, field, form, conversion in parts:
        if field is not None and (field not in FIELDS or form or conversion):
            raise ValueError(f"caption: unknown field {field!r}; expected {{name}} or none")
    return " ".join(template.format(name=re.sub(r"_+", " ", name)).split())


def read_train(
    folder: str, settings: Sequence[str] = (), files: Sequence[str] = (), to: str = ""
) -> TrainConfig:
    """The configuration of a folder's adapters.

    Parameters
    ----------
    settings : `section.key=value`, over those of `files`, which are YAML.
    to : the run's folder or URI; "": `storage_path/<the folder's name>`.

    Raises
    ------
    ConfigError
        With one line per problem: the key, what was found, what is expected.
    """
    own = {"images": whole_path(folder), "name": run_name(folder)}
    return read_command(TrainConfig, own, settings, files, to, (DEFAULTS, LARGE), IDLE)
