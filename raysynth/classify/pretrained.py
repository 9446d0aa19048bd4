"""Where shipped classifiers' cards of version 0.1 import the small network from."""

from raysynth.networks.pretrained import (
    ClipClassifier,
    ClipClassifierConfig,
    SmallResNet,
    SmallResNetConfig,
)

__all__ = ["ClipClassifier", "ClipClassifierConfig", "SmallResNet", "SmallResNetConfig"]
