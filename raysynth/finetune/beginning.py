"""What every fine-tuning begins with instead of nothing: an adapter's file, `finetune.start`.

Its hash is in the digests, so that another file under the same name is another run; it is taken
once, as the commits of hub models are (`models.hub`). Nothing here imports torch but what reads the
file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.adapters.record import file_of
from raysynth.errors import ConfigError, ModelError, RaysynthError
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import Training
from raysynth.models.family import Base, family_of, reader_of
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import resolve
from raysynth.storage.hashes import sha256_of
from raysynth.terminal import masked

if TYPE_CHECKING:
    from torch import nn

    from raysynth.adapters.files import Update, Updates

KEY = "finetune.start"


def hashed(config: Any, strict: bool = True) -> Any:
    """The configuration with the hash of its start's file.

    `strict`: refuse a file that is not there; else all stays as it is (a plan looks at nothing).

    Raises ConfigError.
    """
    settings: FinetuneConfig = config.finetune
    if settings.start is None or settings.start_sha256:
        return config
    try:
        found = sha256_of(file_of(settings.start))
    except (RaysynthError, OSError) as error:
        if strict:
            raise ConfigError(f"{KEY}: {error}") from None
        return config
    finetune = settings.model_copy(update={"start_sha256": found})
    return config.model_copy(update={"finetune": finetune})


def start_of(settings: FinetuneConfig, base: Base) -> Updates:
    """What adapters begin with, by names that begin with a part of the model; empty: nothing.

    Raises
    ------
    ModelError
        The file cannot be read, is no adapter, or is not the one that the run began with.
    """
    if settings.start is None:
        return {}
    part = base.family.roles["model"][0]
    return _read(settings, part, {k: v for k, v in base.parts.items() if v is not None})


def _read(settings: FinetuneConfig, part: str, parts: Mapping[str, Any]) -> dict[str, Update]:
    from raysynth.adapters.foreign import read_file

    assert settings.start is not None
    try:
        if settings.start_sha256 and sha256_of(file_of(settings.start)) != settings.start_sha256:
            raise ModelError(
                f"{masked(settings.start)} is another file than the run began with "
                "(finetune.start_sha256). Fix: put that file back, or leave start_sha256 out for "
                "a run with this one"
            )
        return read_file(settings.start, part, parts)
    except (RaysynthError, OSError) as error:
        raise ModelError(f"{KEY}: {error}") from None


def check_start(
    settings: FinetuneConfig, section: BaseConfigSection, training: Training | None
) -> None:
    """Refuse a start that no training takes, or that does not fit the base.

    Of a hub id the layers are known when it is loaded. Raises ConfigError, ModelError.
    """
    if settings.start is None:
        return
    _check_trained(settings, training)
    source = Path(resolve(section.name))
    if not source.is_dir():
        return
    read = reader_of(source)
    family = family_of(str(source), read)
    part = family.roles["model"][0]
    networks = {part: _without_weights(lambda: family.build(read(part) or {}))}
    for of in family.roles["text"] if settings.text_encoder else ():
        if (source / of / "config.json").is_file():
            networks[of] = _without_weights(partial(_encoder, source / of))
    updates = _read(settings, part, networks)
    _check_parts(settings, updates, part, family.roles["text"])
    strange = [
        f"{name} ({why})"
        for name, update in updates.items()
        if (why := _misfit(networks[name.partition(".")[0]], name, update))
    ]
    if strange:
        raise ConfigError(
            f"{KEY}: {masked(settings.start)}: {len(strange)} of its {len(updates)} layers are not "
            f"the base's, e.g. {'; '.join(strange[:3])}. Fix: an adapter that was trained on a "
            f"base of the shape of base.name={section.name}"
        )


def _check_trained(settings: FinetuneConfig, training: Training | None) -> None:
    """Refuse a start where no adapters are trained, and ranks beside those that it has."""
    if training is None or training.engine != "lora":
        raise ConfigError(
            f"{KEY}: the generator trains no LoRA adapters; expected one that does. Fix: "
            "finetune.engine=lora with a generator that is trained, or leave finetune.start out"
        )
    if ranked := [name for name, own in settings.overrides.items() if own.rank or own.alpha]:
        raise ConfigError(
            f"finetune.overrides: {', '.join(ranked)} with rank or alpha, which {KEY} has of its "
            "own; expected one of the two. Fix: leave rank and alpha out"
        )


def _check_parts(
    settings: FinetuneConfig, updates: Updates, part: str, text: tuple[str, ...]
) -> None:
    """Refuse parts of the model that are not trained, and lengths of rows where none are."""
    trained = (part, *(text if settings.text_encoder else ()))
    if others := sorted({name.partition(".")[0] for name in updates} - set(trained)):
        known = set(others) <= set(text)
        raise ConfigError(
            f"{KEY}: {masked(settings.start or '')} adapts {', '.join(others)} too; expected "
            f"layers of {', '.join(trained)} alone. Fix: "
            + ("finetune.text_encoder=true" if known else "an adapter of such a base")
        )
    if not settings.dora and any(update.M is not None for update in updates.values()):
        raise ConfigError(
            f"{KEY}: {masked(settings.start or '')} has lengths of rows (DoRA), which this run "
            "would not train. Fix: finetune.dora=true"
        )


def _without_weights(build: Callable[[], Any]) -> Any:
    import torch

    with torch.device("meta"):
        return build()


def _encoder(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModel

    return AutoModel.from_config(AutoConfig.from_pretrained(folder))


def _misfit(network: nn.Module, name: str, update: Update) -> str:
    """Why an update is none of a network's; "" where it is."""
    from raysynth.adapters.grouped_lora import layer_at

    layer = layer_at(network, name.partition(".")[2])
    if layer is None:
        return "no such layer"
    outputs, *inputs = layer.weight.shape
    found = (tuple(update.A.shape[1:]), update.B.shape[0])
    if found != (tuple(inputs), outputs):
        return f"{found[0]} to {found[1]} numbers, expected {tuple(inputs)} to {outputs}"
    return ""
