"""Control rows, one file each; the registry by name."""

from __future__ import annotations

from raysynth.references.control import Control
from raysynth.references.controls.base_classifier import BASE_CLASSIFIER
from raysynth.references.controls.clip_balanced_head import CLIP_BALANCED_HEAD

CONTROLS: dict[str, Control] = {
    control.name: control for control in (CLIP_BALANCED_HEAD, BASE_CLASSIFIER)
}

__all__ = ["CONTROLS", "Control"]
