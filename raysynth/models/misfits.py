"""Parts of a model's folder that do not fit one another: what families refuse before loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysynth.errors import ModelError
from raysynth.models.family import KEY
from raysynth.models.headers import read_config


def refuse_misfit(source: Path, network: str, what: str, got: Any, needed: Any) -> None:
    """Refuse a network that its other parts do not fit; raises ModelError."""
    if got != needed:
        raise ModelError(
            f"{KEY}: {source}/{network} has {what}={got}, but its vae and text encoder need "
            f"{needed}. Fix: keep the parts of one model together"
        )


def check_transformer(source: Path, usual: Mapping[str, Any], ours: str, theirs: str) -> None:
    """Refuse a transformer that does not fit its autoencoder or encoder; raises ModelError.

    Parameters
    ----------
    usual : what its configuration leaves out.
    ours, theirs : what the two configurations call the width of the encoder's states.
    """
    network, vae, text = (
        read_config(KEY, source / part / "config.json")
        for part in ("transformer", "vae", "text_encoder")
    )
    channels = (network.get("in_channels", usual["in_channels"]), vae.get("latent_channels", 4))
    refuse_misfit(source, "transformer", "in_channels", *channels)
    refuse_misfit(source, "transformer", ours, network.get(ours, usual[ours]), text.get(theirs))


def require_whole(source: Path, part: str, name: str, value: Any) -> None:
    """Refuse a configuration whose value is no whole number above 0; raises ModelError."""
    if not is_whole(value):
        raise ModelError(
            f"{KEY}: {source}/{part}/config.json has {name}={value!r:.80}; expected a "
            "whole number above 0 (block_out_channels: a list). Fix: take the config.json "
            "that the model was published with"
        )


def require_kind(source: Path, part: str, got: Any, expected: str, title: str) -> None:
    """Refuse a part of another kind; raises ModelError."""
    if got != expected:
        raise ModelError(
            f"{KEY}: {source}/{part} is a {got!r:.80}; expected {expected}. "
            f"Fix: choose a {title} model"
        )


def length_of(value: Any) -> int:
    """Of a list; 0 for what is none."""
    return len(value) if isinstance(value, list) else 0


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number above 0."""
    return type(value) is int and value >= 1
