"""Control rows, one file each; the registry by name."""

from __future__ import annotations

from raysynth.classify.controls.base_classifier import BASE_CLASSIFIER
from raysynth.classify.controls.clip_balanced_head import CLIP_BALANCED_HEAD
from raysynth.classify.controls.control import Control

CONTROLS: dict[str, Control] = {
    control.name: control for control in (CLIP_BALANCED_HEAD, BASE_CLASSIFIER)
}

__all__ = ["CONTROLS", "Control"]
