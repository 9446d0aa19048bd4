"""What families of diffusers' base models have in common: parts that are named by their classes.

A family's file says which class of which library each part of its folders is; how parts load, which
files there must be and which weights follows from that. What is its own, a file overrides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.errors import ConfigError
from raysynth.models.family import KEY, Base, Loader, Published, Read, Role
from raysynth.models.headers import read_config
from raysynth.models.misfits import is_whole
from raysynth.models.shape import Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from raysynth.models.condition import Condition
    from raysynth.models.prediction import Prediction

SCHEDULER = "scheduler"
WEIGHTS = {
    "diffusers": "diffusion_pytorch_model*.safetensors",
    "transformers": "model*.safetensors",
}
"""Library -> pattern of a part's files of weights."""


OF_A_TRANSFORMER: Mapping[Role, tuple[str, ...]] = {
    "model": ("transformer", "scheduler"),
    "vae": ("vae",),
    "text": ("text_encoder", "tokenizer"),
    "scheduler": ("scheduler",),
}
"""Parts by what they are for, of a transformer with one text encoder."""


class PartsFamily:
    """The parts of a `raysynth.models.family.Family` that follow from its classes."""

    title: str
    source: str
    classes: Mapping[str, str]
    """Part -> `library.Class`; the scheduler's is said by its own file."""
    roles: Mapping[Role, tuple[str, ...]]
    targets: Mapping[str, tuple[str, ...]]
    text_targets: Mapping[str, tuple[str, ...]] = {}
    published: Published
    pipeline_class: str
    """diffusers' pipeline."""
    vae_overflows: bool = False
    """Its autoencoder leaves float16's range, and is kept in float32 where all else is in that."""
    patch: int = 1
    compiles: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.tree = dict(_files_of(part, kind) for part, kind in cls.classes.items())
        cls.tree["scheduler/scheduler_config.json"] = "scheduler/*"

    tree: Mapping[str, str]

    @property
    def looks(self) -> str:
        """What its folders hold, in words."""
        named = (f"{_article(kind)} in {part}/" for part, kind in self._with_weights())
        return ", ".join(named)

    @property
    def network(self) -> str:
        """The part that predicts."""
        return self.roles["model"][0]

    @property
    def encoders(self) -> tuple[str, ...]:
        """The parts that read prompts, without their tokenizers."""
        return tuple(part for part in self.roles["text"] if "tokenizer" not in part)

    def recognises(self, read: Read) -> bool:
        """Whether the network's configuration names this family's class."""
        said = (read(self.network) or {}).get("_class_name")
        return bool(said) and said == self.classes[self.network].partition(".")[2]

    def check(self, source: Path) -> None:
        """Refuse parts that do not fit together; raises ModelError."""

    def check_weights(self, source: Path, held: Collection[str] = ()) -> None:
        """Refuse a folder whose files lack weights, or hold others; raises ModelError."""
        from raysynth.models.architecture import build, check_diffusers, check_transformers

        for part, kind in self._with_weights():
            if part in held:
                continue
            key, place = f"{KEY}: {part}", source / part
            config = read_config(key, place / "config.json")
            if kind.startswith("diffusers."):
                maker = partial(class_of(kind).from_config, config)
                own = part == self.network
                check_diffusers(key, place, build(key, place, maker), nothing_else=own)
                continue
            shape = build(key, place, partial(class_of(kind).config_class.from_dict, config))
            model = build(key, place, partial(class_of(kind), shape))
            check_transformers(key, place, model, shape)

    def shape(self, read: Read) -> Shape:
        """Sizes that the network and the autoencoder say; those of a published model if neither."""
        usual, network, vae = self.published.shape, read(self.network) or {}, read("vae") or {}
        factor = int(2 ** (len(vae["block_out_channels"]) - 1))
        side = network.get("sample_size") or vae.get("sample_size", usual.side) // factor
        channels = network.get("in_channels", usual.latents[0])
        grain = self._grain(network)
        return Shape((channels, side, side), factor, self._tokens(read), grain=grain)

    def _grain(self, network: Mapping[str, Any]) -> int:
        """A UNet halves its latents between its blocks; a transformer tiles them."""
        usual = self.published.network.get("block_out_channels", ())
        halvings = max(len(network.get("block_out_channels", usual)) - 1, 0)
        return int(max(2**halvings, self.patch))

    def load(self, part: str, loader: Loader) -> Any:
        """One part of a model."""
        if part == SCHEDULER:
            return loader.scheduler(part)
        library, _, _ = self.classes[part].partition(".")
        kind = self.kind(part)
        if "tokenizer" in part:
            return loader.other(part, kind)
        if library == "diffusers":
            return loader.weights(part, kind, torch_dtype=self.kept_in(part, loader))
        return loader.weights(
            part,
            kind,
            dtype=self.kept_in(part, loader),
            attn_implementation="eager" if loader.plain else "sdpa",
            ignore_mismatched_sizes=True,  # `complete` names them
        )

    def kept_in(self, part: str, loader: Loader) -> torch.dtype:
        """Precision in which a part's weights are kept."""
        import torch

        wide = self.vae_overflows and part == "vae" and loader.dtype == torch.float16
        return torch.float32 if wide else loader.dtype

    def kind(self, part: str) -> Any:
        """The class of a part."""
        return class_of(self.classes[part])

    def build(self, config: Mapping[str, Any]) -> Any:
        """The network of a configuration, with random weights."""
        return self.kind(self.network).from_config(dict(config))

    def blocks(self) -> tuple[type, ...]:
        """Modules that gradient checkpointing computes again."""
        raise NotImplementedError

    def given(self, config: Mapping[str, Any]) -> tuple[int, int, int]:
        """Channels, height and width of what a network of this configuration takes."""
        side = config.get("sample_size") or self.published.shape.latents[1]
        return config.get("in_channels", self.published.shape.latents[0]), side, side

    def condition(self, base: Base, prompts: Sequence[str]) -> Condition:
        """What prompts say, each distinct one computed once; their tokens if `base.live`.

        Raises ConfigError when a prompt is longer than the text encoder reads: the end of it, often
        the attribute, would be dropped silently. A base that `cuts` drops it: of captions.
        """
        import torch

        from raysynth.models.condition import Condition

        distinct = list(dict.fromkeys(prompts))
        tokens = self.tokens(base, distinct)
        row = {prompt: number for number, prompt in enumerate(distinct)}
        rows = [row[prompt] for prompt in prompts]
        if base.live:
            return Condition(tokens).take(rows)
        encoders = {part: base.parts[part] for part in self.encoders}
        with torch.no_grad(), base.autocast():
            states = self.states(encoders, tokens)
        # Taken before they become float32: fewer bytes where rows repeat.
        return Condition({name: _in_float32(tensor[rows]) for name, tensor in states.items()})

    def tokens(self, base: Base, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the text encoders read of prompts, rows of tensors on the base's device."""
        raise NotImplementedError

    def lengths(self, tokenizer: Any, prompts: Sequence[str]) -> list[int]:
        """Tokens of prompts as they are read, with all that is put around them."""
        return [len(ids) for ids in tokenizer(list(prompts), verbose=False)["input_ids"]]

    def states(
        self, encoders: Mapping[str, Any], tokens: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What the network is told of `tokens`."""
        raise NotImplementedError

    def predict(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] what the network gives; of tokens, `joined` with its text encoders."""
        if TOKENS in condition.tensors:
            found: Tensor = model(x, timestep, condition.tensors)
            return found
        return self.asked(model, x, timestep, condition)

    def asked(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] what the network itself gives."""
        raise NotImplementedError

    def joined(self, base: Base) -> Any:
        """The network and its text encoders as one module, which is told tokens."""
        from raysynth.models.joined import WithText

        return WithText(self, base.parts)

    def prediction(self, scheduler: Any) -> Prediction:
        """What the scheduler's configuration says; raises ModelError for what is not known here."""
        from raysynth.models.prediction import prediction_of

        return prediction_of(scheduler)

    def sigmas(self, steps: int) -> list[float] | None:
        """What the family's pipeline asks its own scheduler for; None: the scheduler's own."""
        return None

    def around_vae(self, base: Base) -> AbstractContextManager[Any]:
        """The context in which the autoencoder runs: as it is kept, beside others in float16."""
        import torch

        wide = self.vae_overflows and base.dtype == torch.float16
        return nullcontext() if wide else base.autocast()

    def pipeline(self, base: Base) -> Any:
        """diffusers' pipeline of loaded parts."""
        return class_of(f"diffusers.{self.pipeline_class}")(**base.parts)

    def drawn(
        self, base: Base, prompts: Sequence[str], steps: int, scale: float, dice: Sequence[Any]
    ) -> Tensor:
        """[B, C, H, W] float32 scaled latents by the family's own pipeline, at the base's size."""
        import torch

        pipeline = self.pipeline(base)
        pipeline.set_progress_bar_config(disable=True)
        with torch.no_grad(), base.autocast():
            found = pipeline(
                list(prompts),
                num_inference_steps=steps,
                guidance_scale=self.pipeline_scale(scale),
                height=base.size[0],
                width=base.size[1],
                generator=list(dice),
                output_type="latent",
            )
        latents: Tensor = found.images.float()
        return latents

    def pipeline_scale(self, scale: float) -> float:
        """The pipeline's word for a classifier-free guidance scale, of which 1 is none."""
        return scale

    def _with_weights(self) -> list[tuple[str, str]]:
        return [(part, kind) for part, kind in self.classes.items() if "tokenizer" not in part]

    def _tokens(self, read: Read) -> int:
        """Length of a prompt: the least that encoders and tokenizers say."""
        usual = self.published.shape.tokens
        said: list[Any] = []
        for part in self.roles["text"]:
            config = read(part) or {}
            said.append(config.get("model_max_length", config.get("max_position_embeddings")))
        return min((length for length in said if is_whole(length)), default=usual)


TOKENS, MASK = "tokens", "mask"
"""[S, L] what a text encoder reads, in a `Condition`, instead of its states."""


def class_of(kind: str) -> Any:
    """`library.Class` -> the class."""
    import importlib

    library, _, name = kind.partition(".")
    return getattr(importlib.import_module(library), name)


def padded(base: Base, tokenizer: Any, limit: int, prompts: Sequence[str]) -> Any:
    """A tokenizer's ids and mask [S, limit] of prompts, on the base's device.

    Raises ConfigError for a prompt that is longer, unless the base `cuts`.
    """
    for prompt in prompts if not base.cuts else ():
        length = len(tokenizer(prompt)["input_ids"])
        if length > limit:
            raise ConfigError(
                f"prompts.template: {prompt!r} is {length} tokens long; expected at most "
                f"{limit}, what the text encoder reads. Fix: shorten the template or the words"
            )
    asked = {"padding": "max_length", "max_length": limit, "truncation": base.cuts}
    return tokenizer(list(prompts), **asked, return_tensors="pt").to(base.device)


def _files_of(part: str, kind: str) -> tuple[str, str]:
    if "tokenizer" in part:
        return f"{part}/tokenizer_config.json", f"{part}/*"
    return f"{part}/config.json", f"{part}/{WEIGHTS[kind.partition('.')[0]]}"


def _article(kind: str) -> str:
    name = kind.partition(".")[2]
    return f"an {name}" if name[0] in "AEIO" else f"a {name}"


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
