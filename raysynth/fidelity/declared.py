"""The stage of fidelity, which measures; what its facts mean for a run is the gate's."""

from __future__ import annotations

from typing import Any

from raysynth.fidelity.settings import AUTO
from raysynth.knobs import decides
from raysynth.models.settings import CLIP, clip_of
from raysynth.networks.settings import CLIP_LORA
from raysynth.stages.stage import Stage


def _space(config: Any) -> dict[str, Any]:
    """What identifies the encoder that `auto` stands for, and the images' side."""
    auto, classifier = config.fidelity.encoder == AUTO, config.classifier
    name = classifier.backbone if auto else config.fidelity.encoder
    found = {"encoder": name, "image_size": classifier.image_size}
    found |= {"clip": clip_of(config.base)} if name in (CLIP, CLIP_LORA) else {}
    return found | ({"revision": classifier.revision} if auto and classifier.revision else {})


FIDELITY = Stage(
    "fidelity",
    "fidelity",
    "raysynth.fidelity.stage:build",
    ("ingest", "selection"),
    lambda config: {
        "knobs": decides(config.fidelity),
        "space": _space(config),
        "seed": config.seed,
    },
    check="raysynth.fidelity.checks:check",
    check_read={"ingest": "raysynth.networks.checks:check_sides"},
)
