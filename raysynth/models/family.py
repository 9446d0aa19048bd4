"""What sets the families of base models apart, and a loaded base model of one.

A family is a file of `raysynth/models/families`: it says what recognises it, which parts a folder
has and how they load, what its network is conditioned on and predicts, how its latents are shaped,
and which of its layers can be adapted. All others speak to `Base`, `Condition` and `Denoiser`.

Nothing here, and nothing at a family's module level, imports torch: the driver asks, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from raysynth.errors import ModelError
from raysynth.models.headers import read_config
from raysynth.models.shape import Shape
from raysynth.registry import Registry
from raysynth.sides import Sides
from raysynth.terminal import clipped

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from raysynth.models.condition import Condition
    from raysynth.models.prediction import Prediction

Role = Literal["model", "vae", "text", "scheduler"]
"""What parts are for: the network that predicts, with its schedule; images to latents and back;
prompts to conditions; the schedule alone."""
ROLES: tuple[Role, ...] = ("model", "vae", "text", "scheduler")
Read = Callable[[str], Mapping[str, Any] | None]
"""A part's configuration by the part's name, "" for the whole's; None where there is none."""
KEY = "base.name"


@dataclass(frozen=True)
class Published:
    """A family's usual model, for estimates where no file can be read."""

    network: Mapping[str, Any]
    """diffusers' configuration of the network that predicts."""
    shape: Shape
    encoders: float
    """Bytes of the other parts, two per number."""
    texts: Sequence[Mapping[str, Any]] = ()
    """transformers' configurations of its text encoders, where they can be adapted."""
    hub: tuple[str, ...] = ()
    """How hub ids of such models begin, in small letters."""


class Loader(Protocol):
    """Opens parts of one model, from a folder or the hub."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which weights are kept."""

    @property
    def plain(self) -> bool:
        """Attention as plain matrix products rather than fused."""

    def weights(self, part: str, kind: Any, **options: Any) -> Any:
        """A part with weights; `kind`: its class, with diffusers' or transformers' own loader."""

    def other(self, part: str, kind: Any) -> Any:
        """A part without weights."""

    def scheduler(self, part: str) -> Any:
        """The diffusers scheduler that a part's configuration names."""


class Family(Protocol):
    """One kind of base model."""

    title: str
    source: str
    """Where it was published."""
    looks: str
    """What its folders hold, in words, for a message."""
    tree: Mapping[str, str]
    """Files of its folders, each with a pattern of what lies beside it."""
    roles: Mapping[Role, tuple[str, ...]]
    """Parts (folders) by what they are for; the first of `model` is the network that predicts."""
    targets: Mapping[str, tuple[str, ...]]
    """Kinds of layers that LoRA adapts, and the ends of their module names in the network."""
    text_targets: Mapping[str, tuple[str, ...]]
    """The same in its text encoders, which are adapted where `finetune.text_encoder` says so; empty
    where diffusers reads no adapters of them."""
    published: Published
    patch: int
    """Side of what its network makes one token of, latent positions."""
    compiles: bool
    """Whether its network is compiled unasked where that pays."""

    def recognises(self, read: Read) -> bool:
        """Whether configurations are those of this family."""

    def check(self, source: Path) -> None:
        """Refuse a folder of this family whose parts do not fit together; raises ModelError."""

    def check_weights(self, source: Path, held: Collection[str] = ()) -> None:
        """Refuse a folder whose files lack weights, or hold others of the network.

        `held`: parts whose weights come from elsewhere. Raises ModelError.
        """

    def shape(self, read: Read) -> Shape:
        """The sizes of a model of this family."""

    def load(self, part: str, loader: Loader) -> Any:
        """One part of a model."""

    def kind(self, part: str) -> Any:
        """The class of a part."""

    def build(self, config: Mapping[str, Any]) -> Any:
        """The network of a configuration, with random weights on torch's default device."""

    def given(self, config: Mapping[str, Any]) -> tuple[int, int, int]:
        """Channels, height and width of what a network of this configuration takes."""

    def blocks(self) -> tuple[type, ...]:
        """Modules of the network that gradient checkpointing computes again, one by one."""

    def condition(self, base: Base, prompts: Sequence[str]) -> Condition:
        """A row per prompt; raises ConfigError when one is longer than is read and none `cuts`."""

    def lengths(self, tokenizer: Any, prompts: Sequence[str]) -> list[int]:
        """Tokens of prompts as they are read, with all that is put around them."""

    def blank(self, model: Any, rows: int, tokens: int) -> Condition:
        """Rows of zeros in the shape that a network takes, on its device and in its precision."""

    def predict(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] what the network gives, as it computes it; see `Denoiser`."""

    def joined(self, base: Base) -> Any:
        """The network with its text encoders, which takes the conditions of a `live` base."""

    def prediction(self, scheduler: Any) -> Prediction:
        """What the network predicts; raises ModelError for what is not known here."""

    def sigmas(self, steps: int) -> list[float] | None:
        """What the family's pipeline asks its own scheduler for; None: the scheduler's own."""

    def around_vae(self, base: Base) -> AbstractContextManager[Any]:
        """The context in which the autoencoder runs."""

    def pipeline(self, base: Base) -> Any:
        """diffusers' pipeline of loaded parts."""

    def drawn(
        self, base: Base, prompts: Sequence[str], steps: int, scale: float, dice: Sequence[Any]
    ) -> Tensor:
        """[B, C, H, W] float32 scaled latents by the family's own pipeline, of `Base.size`.

        `scale`: of classifier-free guidance, 1 is none; `dice`: a generator for each prompt.
        """


KINDS = ("attention", "feed_forward", "time", "convolution")
"""Of layers; a family need not have all: transformers have no convolutions."""


def layers_of(family: Family, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Kind of layer -> ends of module names, of the kinds that are asked for and that it has."""
    there = [target for target in targets if target in family.targets or target not in KINDS]
    return {target: family.targets.get(target, (target,)) for target in there}


FAMILIES: Registry[Family] = Registry("raysynth.models.families", "base family")
USUAL = "stable_diffusion_1"
"""The family that is supposed where nothing can be read."""


@dataclass(frozen=True)
class Base:
    """A text-to-image base model, frozen, in eval mode.

    `dtype` is the compute precision: run the models inside `autocast()`.
    """

    family: Family
    parts: Mapping[str, Any]
    """By the family's names; None where it was not asked for."""
    shape: Shape
    """Known without any weights."""
    device: torch.device
    dtype: torch.dtype
    live: bool = False
    """Conditions are tokens: `network` makes text states of them, with adapters of its own."""
    cuts: bool = False
    """Prompts that are longer than the family reads are cut, not refused."""

    @property
    def model(self) -> Any:
        """The network that predicts."""
        return self.parts[self.family.roles["model"][0]]

    @property
    def network(self) -> Any:
        """What adapters are put on: the model, of a `live` base joined with its text encoders."""
        return self.family.joined(self) if self.live else self.model

    @property
    def prefix(self) -> str:
        """Of the names of adapted layers in files; "" where `network` says the part itself."""
        return "" if self.live else f"{self.family.roles['model'][0]}."

    @property
    def vae(self) -> Any:
        """The autoencoder between images and latents."""
        return self.parts[self.family.roles["vae"][0]]

    @property
    def scheduler(self) -> Any:
        """The noise schedule of the network."""
        return self.parts[self.family.roles["scheduler"][0]]

    @cached_property
    def prediction(self) -> Prediction:
        """What the network predicts; raises ModelError for what is not known here."""
        return self.family.prediction(self.scheduler).to(self.device)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the model's own latents."""
        return self.shape.latents

    @property
    def image_size(self) -> int:
        """Side of the model's own images, pixels."""
        return self.shape.side

    @property
    def size(self) -> Sides:
        """Height and width of the images that it is used for, pixels."""
        _, height, width = self.shape.latents
        return height * self.shape.factor, width * self.shape.factor

    def at(self, height: int, width: int) -> Base:
        """The same model for images of a height and width in pixels."""
        return replace(self, shape=self.shape.at(height, width))

    def condition(self, prompts: Sequence[str]) -> Condition:
        """A row per prompt; raises ConfigError when one is longer than is read and none `cuts`."""
        return self.family.condition(self, prompts)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the models run at `dtype`."""
        from raysynth.models.device import autocast

        return autocast(self.device, self.dtype)


def family_of(source: str, read: Read) -> Family:
    """The family that recognises a model.

    Raises
    ------
    ModelError
        None does.
    """
    for family in FAMILIES.each():
        if family.recognises(read):
            return family
    folder = Path(source)
    if folder.is_dir():
        likely = [FAMILIES[USUAL], *FAMILIES.each()]  # of equals the first
        nearest = min(likely, key=lambda family: len(lacking(folder, family.tree)))
        check_tree(KEY, folder, nearest.tree)
    known = "; ".join(f"{family.title} ({family.looks})" for family in FAMILIES.each())
    raise ModelError(
        f"{KEY}: {source} is a {_described(read)}, of no family that is known here; expected "
        f"{known}. Fix: choose such a model"
    )


def reader_of(folder: Path) -> Read:
    """Reads the configurations of a folder's parts; raises ModelError for what is no JSON."""

    def read(part: str) -> Mapping[str, Any] | None:
        path = folder / part / CONFIGS.get(part, "config.json")
        return read_config(KEY, path) if path.is_file() else None

    return read


CONFIGS = {
    "": "model_index.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
"""Where a part's configuration is not in `config.json`."""


def lacking(folder: Path, tree: Mapping[str, str]) -> list[str]:
    """Files and patterns of a tree that a folder has not."""
    missing = [name for name in tree if not (folder / name).is_file()]
    missing += [pattern for pattern in tree.values() if not any(folder.glob(pattern))]
    return list(dict.fromkeys(missing))


def check_tree(key: str, folder: Path, tree: Mapping[str, str]) -> None:
    """Refuse a folder that lacks files; raises ModelError."""
    if missing := lacking(folder, tree):
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
        expected = "\n  ".join(dict.fromkeys((*tree, *tree.values())))
        raise ModelError(
            f"{key}: {folder} lacks {', '.join(missing)}; found {found}; expected\n  "
            f"{expected}\nFix: point {key} to a folder saved by diffusers' or transformers' "
            "save_pretrained with safe_serialization=True"
        )


def _described(read: Read) -> str:
    """A model's own names of itself and of its network."""
    said = [
        clipped(str((read(part) or {}).get("_class_name")))
        for part in ("", "unet", "transformer")
        if read(part)
    ]
    return " with ".join(said) or "model without a configuration"
