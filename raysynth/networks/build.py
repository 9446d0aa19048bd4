"""Backbones: a small residual network, or any transformers image classification model.

Both have a linear head on pooled features. Importing transformers takes seconds of every worker,
so only `raysynth.networks.pretrained` does, which loads its models and saves both kinds.
"""

from __future__ import annotations

from typing import Any

from raysynth.networks.settings import SMALL, ClassifierConfig
from raysynth.networks.small import SmallNetwork, load_embedded


def build_model(classifier: ClassifierConfig, label_names: tuple[str, ...], size: int) -> Any:
    """The backbone with a fresh head for these labels, for images of `size` x `size` pixels.

    Random parts come from torch's global generator. Weights are read from safetensors only.

    Raises
    ------
    ModelError
        When transformers cannot load the named model.
    """
    if classifier.backbone == SMALL:
        network = SmallNetwork(classifier.widths, 3, len(label_names))
        if classifier.starts_pretrained:
            load_embedded(network, "other_garments")
        return network
    from raysynth.networks.pretrained import load_model

    return load_model(classifier, label_names, size)
