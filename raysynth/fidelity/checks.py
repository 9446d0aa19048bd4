"""What is refused of fidelity before Ray starts."""

from __future__ import annotations

from typing import Any

from raysynth.fidelity.settings import AUTO, KEY
from raysynth.models.sources import check_encoder


def check(config: Any) -> None:
    """Refuse a folder that is no vision model; ModelError. The backbone's own check is another."""
    if config.fidelity.encoder != AUTO:
        check_encoder(config.fidelity.encoder, key=KEY)
