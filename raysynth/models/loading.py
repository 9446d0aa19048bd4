"""Opening models, from the hub and from folders alike: complete, frozen, errors explained.

What loads imports diffusers and transformers, which take seconds and 0.3 GB: the driver of a run
names what is loaded in its workers, and loads nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError

from raysynth.errors import ModelError
from raysynth.models.architecture import FAULTS, refuse_random
from raysynth.models.headers import reason_of
from raysynth.models.settings import BaseConfigSection


def complete(key: str, source: str, found: tuple[Any, dict[str, Any]], allowed: Any = None) -> Any:
    """A model that was loaded with `output_loading_info`.

    Raises ModelError if some of its weights were not in its files, but for those `allowed`.
    """
    model, info = found
    options = {} if allowed is None else {"allowed": allowed}
    refuse_random(key, source, info, len(model.state_dict()), **options)
    return model


def load_or_explain(what: str, source: str, loader: Callable[[], Any]) -> Any:
    """What `loader` loads; its errors as ModelError, naming `what` (a configuration key)."""
    try:
        return loader()
    except (*FAULTS, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{what}: {source} asks to run Python of its own (auto_map); expected a model that "
                "transformers has itself: no code of a model folder is ever run. Fix: choose such "
                "a model"
            ) from None
        raise ModelError(
            f"{what} cannot be loaded from {source}: {reason_of(error)}\n"
            "Expected safetensors in a folder or on the Hugging Face hub. Fix: check the name, the "
            "revision and the network, or download the model and give its folder"
        ) from error


def frozen(part: Any, device: torch.device) -> Any:
    """A module on the device, in eval mode, without gradients; other parts as they are."""
    if isinstance(part, torch.nn.Module):
        part.to(device).eval().requires_grad_(False)
    return part


def round_weights(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen matrices in the precision that they are multiplied in.

    Autocast would round them to it anyway, at every call (it remembers trained weights only): the
    products are the same, bit for bit. Normalisations keep their precision, quantised layers their
    numbers.
    """
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.to(dtype)


def quiet_transformers() -> Any:
    """transformers, without bars of its own that would tear the run's progress line."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


def plain_attention(base: BaseConfigSection, device: torch.device) -> bool:
    """Whether text encoders, whose prompts are short, attend by plain products."""
    from raysynth.models.attention import fitting

    return fitting(base.attention, device, positions=0) == "plain"


def limit_tokenizer(tokenizer: Any, text: Any) -> int:
    """Let a tokenizer say what its text encoder reads: its own file may not (10^30 then)."""
    limit = int(min(tokenizer.model_max_length, text.max_position_embeddings))
    tokenizer.model_max_length = limit
    return limit


def load_scheduler(source: str, hub: dict[str, Any]) -> Any:
    """The scheduler of a folder or hub id; ValueError for a class that diffusers does not know."""
    import diffusers

    config = diffusers.DDPMScheduler.load_config(source, subfolder="scheduler", **hub)
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"unknown scheduler class {config.get('_class_name')!r}")
    return kind.from_config(config)  # type: ignore[attr-defined]
