"""One `.safetensors` file of weights in place of those of a base's folder or hub id.

Such files hold the weights of Stable Diffusion's own code, or of a transformer, under other names;
diffusers has the translations. What a file lacks (configurations, tokenizers, often encoders) stays
that of `base.name`. Nothing here imports torch but where weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.errors import ModelError
from raysynth.models.headers import Tensor, read_config, read_header
from raysynth.models.mirror import located

if TYPE_CHECKING:
    from raysynth.models.family import Family

KEY = "base.weights"
HELD = {
    "unet": ("model.diffusion_model.",),
    "transformer": ("",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
"""Part -> how the names of its weights begin; a transformer's file need hold nothing else."""


class SingleFile:
    """The weights of one file, read when a part is first asked for."""

    def __init__(self, path: str) -> None:
        """`path`: of the file; raises ModelError where there is none, or it is not whole."""
        self.path = Path(located(path, KEY))
        if not self.path.is_file():
            raise ModelError(
                f"{KEY}: no file {path}; expected a .safetensors file of weights. Fix: check the "
                "path (on a cluster every node must see it)"
            )
        self.header: Mapping[str, Tensor] = read_header(KEY, self.path)

    def holds(self, part: str) -> bool:
        """Whether a part's weights are in the file."""
        begin = HELD.get(part, ())
        return any(name.startswith(begin) for name in self.header) if begin else False

    def check(self, family: Family, source: Path) -> None:
        """Refuse a file that lacks weights of the network, or of a part that it holds some of.

        `source`: the folder of `base.name`, for the configurations. Raises ModelError.
        """
        from raysynth.models.architecture import build, on_meta

        network = family.roles["model"][0]
        if not self.holds(network):
            raise ModelError(
                f"{KEY}: {self.path} holds no weights of a {network}, but {_some(self.header)}; "
                f"expected those of {family.title}. Fix: choose a file of that family, or the "
                "base.name of the file's"
            )
        for part in (network, "vae"):
            if not self.holds(part):
                continue
            config = read_config(f"{KEY}: {part}", source / part / "config.json")
            kind = family.kind(part)
            maker = partial(kind.from_config, config)
            model, named = build(f"{KEY}: {part}", source / part, maker), on_meta(self.header)
            if named.keys() != model.state_dict().keys():
                named = self._translated(kind, config, named)
            self._compare(part, model, named)

    def load(self, part: str, kind: Any, config: str, dtype: Any) -> Any:
        """A part with the file's weights.

        Parameters
        ----------
        kind : its class, of diffusers or transformers.
        config : folder that has its configuration below its name.

        Raises
        ------
        ModelError
            Some of its weights are not in the file.
        """
        options = {"torch_dtype": dtype, "local_files_only": True}
        if hasattr(kind, "from_single_file"):
            found = kind.from_single_file(
                dict(self._weights), config=config, subfolder=part, **options
            )
        else:
            from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

            found = create_diffusers_clip_model_from_ldm(
                kind, dict(self._weights), subfolder=part, config=config, **options
            )
        missing = [name for name, value in found.named_parameters() if value.is_meta]
        if missing:
            raise self._lacks(part, missing, len(list(found.parameters())))
        return found

    @cached_property
    def _weights(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.path)

    def _translated(self, kind: Any, config: Any, weights: dict[str, Any]) -> dict[str, Any]:
        """The file's weights under diffusers' names, by its own translation."""
        from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES as KNOWN

        translate = KNOWN[kind.__name__]["checkpoint_mapping_fn"]
        try:
            found: dict[str, Any] = translate(checkpoint=weights, config=config)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{KEY}: {self.path} cannot be read as a {kind.__name__} "
                f"({type(error).__name__}: {error}); expected all weights of one. Fix: choose a "
                "file of base.name's family"
            ) from None
        return found

    def _compare(self, part: str, model: Any, found: Mapping[str, Any]) -> None:
        expected = model.state_dict()
        missing = sorted(expected.keys() - found.keys())
        if missing:
            raise self._lacks(part, missing, len(expected))
        for name, value in expected.items():
            if found[name].shape != value.shape:
                raise ModelError(
                    f"{KEY}: {self.path}: {part} {name} has the shape {list(found[name].shape)}, "
                    f"expected {list(value.shape)}, as base.name says. Fix: the base.name that the "
                    "file was made of"
                )

    def _lacks(self, part: str, missing: list[str], count: int) -> ModelError:
        return ModelError(
            f"{KEY}: {self.path} lacks {len(missing)} of {count} weights of the {part}: "
            f"{', '.join(missing[:3])}; expected all, they would be no numbers. Fix: download the "
            "file again, or choose one of base.name's family"
        )


def _some(header: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(header)[:3]) or "nothing"
