"""The first configuration of a folder of images: what was found, and settings that fit it.

Three recipes: the embedded base, where its words are those of the labels; Stable Diffusion on a
GPU; and, between the two, Stable Diffusion on CPUs with as little of everything as still says
something. What each takes, `plan` says of the configuration that is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raysynth.config.config import Config
from raysynth.datasets.garments import CLASSES
from raysynth.datasets.layout import layout_of
from raysynth.datasets.listing import list_dataset
from raysynth.datasets.settings import LAYOUTS, DatasetConfig
from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.planning.minutes import has_gpu
from raysynth.planning.recognised import layout_in
from raysynth.planning.sizes import first_size

BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
CLIP = "openai/clip-vit-base-patch32"
APART = "a photo of a {token} {label}, {attribute}"
"""For attributes of any kind; the default's `on` is for grounds."""
GROUNDS = ("grass", "gravel", "brick", "wood", "stone", "sand")
"""Words that something lies on."""
EMBEDDED: dict[str, Any] = {"base": {"name": "embedded", "clip": "embedded"}}
GPU: dict[str, Any] = {
    "base": {"name": BASE, "clip": CLIP},
    "finetune": {
        "learning_rate": 1.0e-4,
        "steps": 800,
        "batch_size": 4,
        "gradient_checkpointing": True,
    },
    "synthesis": {"steps": 20, "guidance_scale": 7.5, "batch_size": 16},
    "classifier": {"backbone": "microsoft/resnet-50", "image_size": 224, "crop_padding": 8},
    "references": {"steps": 2000},
    "search": {"steps": [500, 4000], "gpus_per_trial": 1},
    "resources": {"gpus_per_worker": 1},
}
CPU: dict[str, Any] = {
    "generator": "lora",
    "base": {"name": BASE, "clip": CLIP},
    "clustering": {"k": 1},
    "finetune": {"learning_rate": 1.0e-4, "steps": 50, "batch_size": 2},
    "synthesis": {
        "steps": 10,
        "guidance_scale": 7.5,
        "images_per_group": 50,
        "image_size": 256,
        "batch_size": 2,
    },
    "classifier": {"backbone": "clip", "image_size": 224, "steps": 0},
    "references": {"names": [], "controls": ["clip_balanced_head"]},
    "search": {"steps": [0, 0], "head_real_shares": [1.0, 0.75, 0.5]},
}


@dataclass(frozen=True)
class Proposal:
    """What was found in a folder, and the settings that fit it."""

    groups: Groups
    listing: pa.Table
    settings: dict[str, Any]
    """As a YAML file would have them."""
    recipe: str
    """embedded, gpu or cpu."""
    size: tuple[int, int] | None
    """Of the first image, pixels."""

    @property
    def config(self) -> Config:
        """The configuration that the settings are."""
        return Config.model_validate(self.settings)


def propose(path: str, *, gpu: bool | None = None) -> Proposal:
    """Look at a folder of images; `gpu`: whether there is one, None: whether this machine has.

    Raises
    ------
    DataError
        The folder is no data set that can be read, or has too few images of a group.
    """
    name = layout_in(path)
    dataset = {"name": name, "path": path if "://" in path else os.path.abspath(path)}
    groups, listing, found = _listed(dataset)
    config = DatasetConfig.model_validate(found)
    size = first_size(Config.model_validate({"dataset": found}), listing)
    known = set(groups.label_words) <= set(CLASSES)
    recipe = "embedded" if known else "gpu" if (has_gpu() if gpu is None else gpu) else "cpu"
    chosen: dict[str, Any] = {"embedded": EMBEDDED, "gpu": GPU, "cpu": CPU}[recipe]
    words = {
        "label_words": dict(zip(groups.label_names, groups.label_words, strict=True)),
        "attribute_words": dict(zip(groups.attribute_names, groups.attribute_words, strict=True)),
    }
    if config.attributes == "unknown":
        del words["attribute_words"]
    side = {"image_size": 32} if recipe == "embedded" else {}
    settings = {
        "name": run_name(path),
        "storage_path": "runs",
        "dataset": {**found, **side, **words},
        "prompts": {"template": _template(groups)},
        **chosen,
    }
    return Proposal(groups, listing, settings, recipe, size)


def _listed(dataset: Mapping[str, Any]) -> tuple[Groups, pa.Table, dict[str, Any]]:
    """The groups, the listing and the section; attributes are unknown where none are written."""
    try:
        _, groups, listing = list_dataset(DatasetConfig.model_validate(dataset), 0)
        return groups, listing, dict(dataset)
    except DataError as refused:
        if not _names_attributes(dataset):
            unknown = {**dataset, "attributes": "unknown"}
            _, groups, listing = list_dataset(DatasetConfig.model_validate(unknown), 0)
            return groups, listing, unknown
        raise refused


def _names_attributes(dataset: Mapping[str, Any]) -> bool:
    """Whether any image says its attribute; read as if none had to."""
    unknown = DatasetConfig.model_validate({**dataset, "attributes": "unknown"})
    opened = layout_of(unknown).open(unknown, 0)
    found = opened.listing()["attribute"].to_numpy()
    return bool((found >= 0).any()) and len(opened.attribute_names) > 1


def _template(groups: Groups) -> str:
    """The default's where something lies on every attribute, else one for anything."""
    lie = all(word in GROUNDS for word in groups.attribute_words)
    return str(PromptConfig().template) if lie else APART


def run_name(path: str) -> str:
    """A run's name from the folder's."""
    last = path.rstrip("/").rpartition("/")[2] or os.path.basename(os.path.abspath(path))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")
    return name[:60] or "own"


def layout_words(name: str) -> str:
    """What a layout is, for a comment."""
    return f"{LAYOUTS[name].title}: {LAYOUTS[name].reads}"
