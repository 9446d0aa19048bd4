"""What a generator is: which models it fine-tunes, on what, and how they make images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from raysynth.groups.settings import PromptConfig
from raysynth.registry import Registry

Engine = Literal["lora", "full"]
Scope = Literal["image", "group", "group_cluster", "class", "attribute", "all", "auto"]
Check = Callable[[str, PromptConfig, Any], None]
"""(name, `prompts`, `finetune`): raises ValueError for settings that the generator cannot use."""

OURS = "ours"
"""`Generator.source` of what no paper describes."""


@dataclass(frozen=True)
class Models:
    """What a generator fine-tunes, where `finetune` does not say otherwise."""

    engine: Engine
    """lora: adapters; full: all weights of the denoiser."""
    scope: Scope
    """What one model is trained on: an image, a group, a cluster of one, the groups of a class or
    of an attribute, or all; auto: several groups, as `finetune.per` and the data decide."""
    other: str = ""
    """The generator that this one is with the other engine, which it therefore refuses."""
    token: bool = True
    """Whether prompts hold DreamBooth's rare token, where the model was trained on the group."""

    @property
    def several(self) -> bool:
        """Whether one model is trained on several groups, which only the prompt tells apart."""
        return self.scope not in ("image", "group", "group_cluster")


@dataclass(frozen=True)
class Sampling:
    """How a generator's images are made."""

    edits: bool = False
    """Real images are edited (SDEdit) instead of images drawn from noise."""
    masks: bool = False
    """Edits heed `synthesis.mask`."""
    strength: float = 1.0
    """Noise put on an image that is edited as a whole, as a share of the schedule."""


def nothing_to_refuse(name: str, prompts: PromptConfig, finetune: Any) -> None:
    """Of generators whose `models` and `sampling` say it all."""


@dataclass(frozen=True)
class Generator:
    """A way from real images to synthetic ones; its name is its file's."""

    title: str
    source: str
    models: Models | None = None
    """None: the base model as it is."""
    sampling: Sampling = field(default_factory=Sampling)
    check: Check = nothing_to_refuse
    """What it refuses besides what `check_generator` does."""


GENERATORS: Registry[Generator] = Registry("raysynth.generators.methods", "generator")
"""Every generator; `auto`, which tries several, is none."""


def check_generator(name: str, prompts: PromptConfig, finetune: Any, judged: bool = False) -> None:
    """Refuse a generator that could not be told what its models are to learn.

    `finetune`: the section of that name, of a room above. `judged`: what tells a class's groups
    apart are their images (`synthesis.rebalance`).

    Raises
    ------
    ValueError
        Another engine than the one that defines it; prompts that tell a class's groups not apart,
        or have no rare token that full weights of one group could be bound to; or as the generator
        itself refuses.
    """
    generator = GENERATORS[name]
    if generator.models is not None:
        _check_models(name, generator.models, prompts, finetune.engine, judged)
    generator.check(name, prompts, finetune)


def _check_models(
    name: str, models: Models, prompts: PromptConfig, asked: str, judged: bool
) -> None:
    engine = models.engine if asked == "auto" else asked
    if models.other and engine != models.engine:
        raise ValueError(
            f"finetune.engine={engine}: {name} is defined by its other engine; expected auto. "
            f"Fix: generator={models.other}, or finetune.engine=auto"
        )
    if models.several and not judged and "attribute" not in prompts.fields:
        raise ValueError(
            f"prompts.template: {{attribute}} is missing, so nothing tells generator={name} a "
            "class's groups apart. Fix: speak of the attribute, e.g. "
            f"{PromptConfig().template!r}, or another generator, or "
            "synthesis.rebalance.judge=clip, which looks at the images"
        )
    bound = engine == "full" and not models.several and models.token
    if bound and not ("token" in prompts.fields and prompts.token.strip()):
        raise ValueError(
            f"prompts: no rare token ({{token}} in prompts.template, prompts.token), which "
            f"generator={name} binds its images to: prior preservation would hold them to what "
            f"the base draws. Fix: prompts.template={PromptConfig().template!r}, or "
            "generator=lora"
        )
