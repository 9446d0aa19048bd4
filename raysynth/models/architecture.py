"""A model's weights against its architecture, which is built on the meta device.

What a file lacks, transformers draws at random and only warns, and diffusers fails late: both are
refused here, before anything is loaded (by the files' headers) and again when it is.

Tensors that a file has and the model has not are no fault in encoders: poolers, other heads,
decoders, another tower, buffers of older versions. In a network that predicts they are: what it
learnt with them would be left out. A file of another architecture is told by what it lacks: all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors

from raysynth.errors import ModelError
from raysynth.models.headers import (
    DIFFUSERS,
    TRANSFORMERS,
    Tensor,
    read_config,
    read_headers,
    reason_of,
)

NO_CODE = {"trust_remote_code": False}
"""For every loader of transformers that might run a model folder's own Python; without it, it asks
at the terminal."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}
FAULTS = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ImportError,
    getattr(errors, "StrictDataclassError", OSError),  # a wrong type in a configuration
)
"""What torch, transformers and diffusers raise for files that they cannot use."""
SHOWN = 4
"""Keys named in a message."""

Allowed = Callable[[str], bool]
"""Whether a weight may be missing."""


def nothing(_key: str) -> bool:
    """No weight may be missing."""
    return False


def is_pooler(key: str) -> bool:
    """Whether a weight is a pooler's, which no encoder is asked for."""
    return "pooler" in key.split(".")


def of_layers(names: Iterable[str]) -> Allowed:
    """Whether a weight belongs to one of these layers: a new head's may be missing."""
    prefixes = tuple(f"{name}." for name in names)
    return lambda key: key.startswith(prefixes) if prefixes else False


def build(key: str, folder: Path, maker: Callable[[], Any]) -> Any:
    """What `maker` makes, on the meta device.

    Raises
    ------
    ModelError
        The folder's configuration describes no model.
    """
    try:
        with torch.device("meta"), quiet_libraries():
            return maker()
    except FAULTS as error:
        raise ModelError(
            f"{key}: no model can be made of {folder}/config.json ({reason_of(error)}); expected "
            f"the configuration that save_pretrained writes{_advice(error)}"
        ) from None


def check_transformers(
    key: str, folder: Path, model: Any, config: Any, allowed: Allowed = nothing
) -> None:
    """Refuse files that lack weights of a transformers model.

    Parameters
    ----------
    key : the configuration key that names the folder, for the message.
    model : built on the meta device from `config`.
    allowed : weights that may be missing or of another shape.

    Raises
    ------
    ModelError
        As `headers.read_headers`; or weights are missing or of another shape.
    """
    headers = read_headers(key, folder, TRANSFORMERS)
    try:
        # transformers' own loader, which knows renamed prefixes, tied and unused weights.
        with quiet_libraries():
            _, found = type(model).from_pretrained(
                None,
                config=config,
                state_dict=on_meta(headers),
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except FAULTS:
        return  # loading explains it
    refuse_random(key, str(folder), found, len(model.state_dict()), allowed)


def check_diffusers(key: str, folder: Path, model: Any, nothing_else: bool = False) -> None:
    """Refuse files that lack weights of a diffusers model, built on the meta device.

    `nothing_else`: and files that hold others, which would be left out in silence.

    Raises
    ------
    ModelError
        As `headers.read_headers`; or weights are missing, of another shape or too many.
    """
    state, expected = on_meta(read_headers(key, folder, DIFFUSERS)), model.state_dict()
    if hasattr(model, "_fix_state_dict_keys_on_load"):  # older names of attention layers
        model._fix_state_dict_keys_on_load(state)
    found = {
        "missing_keys": expected.keys() - state.keys(),
        "mismatched_keys": [
            (name, state[name].shape, value.shape)
            for name, value in expected.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    refuse_random(key, str(folder), found, len(expected))
    others = sorted(state.keys() - expected.keys()) if nothing_else else []
    if others:
        raise ModelError(
            f"{key}: the safetensors files of {folder} hold {len(others)} weights that the model "
            f"of its config.json has not: {', '.join(others[:SHOWN])}; expected its own alone, "
            "these would be left out. Fix: keep config.json and weights of one model together"
        )


def refuse_random(
    key: str, source: str, found: Mapping[str, Any], count: int, allowed: Allowed = nothing
) -> None:
    """Refuse a model of which some weights do not come from its files.

    Parameters
    ----------
    found : `output_loading_info` of transformers or diffusers.
    count : weights of the model.

    Raises
    ------
    ModelError
        Weights that are missing or of another shape, but for those `allowed`.
    """
    missing = sorted(name for name in found.get("missing_keys", ()) if not allowed(name))
    shapes = sorted(
        (str(name), tuple(got), tuple(needed))
        for name, got, needed in found.get("mismatched_keys", ())
        if not allowed(str(name))
    )
    if not missing and not shapes:
        return
    said = []
    if missing:
        more = ", ..." if len(missing) > SHOWN else ""
        named = ", ".join(missing[:SHOWN])
        said.append(f"{len(missing)} of {count} weights are missing: {named}{more}")
    if shapes:
        name, got, needed = shapes[0]
        said.append(f"{len(shapes)} have another shape: {name} {list(got)} for {list(needed)}")
    raise ModelError(
        f"{key}: the safetensors files of {source} do not hold the model of its config.json; "
        f"{'; '.join(said)}; expected all, they would be random numbers. Fix: download the model "
        "again, whole; or keep config.json and weights of one model together"
    )


def refuse_code(key: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose model is defined by Python of its own.

    Raises
    ------
    ModelError
        transformers does not know its `model_type`; with `auto_map`, whose code is not run.
    """
    import transformers

    kind = config.get("model_type")
    timm = "architecture" in config and "pretrained_cfg" in config
    if (isinstance(kind, str) and kind in transformers.CONFIG_MAPPING) or (kind is None and timm):
        return
    own = " and asks to run its own code (auto_map)" if config.get("auto_map") else ""
    raise ModelError(
        f"{key}: {folder}/config.json has model_type {kind!r}, which transformers "
        f"{transformers.__version__} does not know{own}; expected one of its own models: no code "
        "of a model folder is ever run. Fix: choose a model that transformers has itself"
    )


def check_clip_weights(key: str, folder: Path) -> None:
    """Refuse a CLIP's folder whose files lack weights; raises ModelError."""
    from transformers import CLIPConfig, CLIPModel

    shape = read_config(key, folder / "config.json")
    config = build(key, folder, lambda: CLIPConfig.from_dict(shape))
    check_transformers(key, folder, build(key, folder, lambda: CLIPModel(config)), config)


def check_encoder_weights(key: str, folder: Path) -> None:
    """Refuse a folder that holds no vision model, or not all of its weights; raises ModelError."""
    import transformers

    refuse_code(key, folder, read_config(key, folder / "config.json"))
    source = str(folder)
    config = build(key, folder, lambda: transformers.AutoConfig.from_pretrained(source, **NO_CODE))
    model = build(key, folder, lambda: transformers.AutoModel.from_config(config, **NO_CODE))
    check_sees(key, source, model)
    check_transformers(key, folder, model, config, is_pooler)


def check_sees(key: str, source: str, model: Any) -> None:
    """Refuse a transformers model that makes no vectors of images; raises ModelError."""
    if model.main_input_name != "pixel_values" and not hasattr(model, "get_image_features"):
        raise ModelError(
            f"{key}: {source} holds a {type(model).__name__}, which takes {model.main_input_name}; "
            "expected a vision model. Fix: choose a model of images, such as facebook/dinov2-small"
        )


def _advice(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return ". Fix: install the package that it names, here and on every node"
    return ". Fix: download the model again, or choose another"


def on_meta(headers: Mapping[str, Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of files' headers, without numbers."""
    return {
        name: torch.empty(
            tensor.shape, dtype=DTYPES.get(tensor.dtype, torch.float32), device="meta"
        )
        for name, tensor in headers.items()
    }


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """transformers without bars and warnings: what counts is refused."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
