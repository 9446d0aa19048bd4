"""The head that was trained along with the encoder, as it stands."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    return {spec.name: Fitted(None, seen.features.logits.argmax(axis=1)) for spec in specs}


PART = HeadObjective("Trained along", "the last layer of the network itself", _fit, swept=False)
