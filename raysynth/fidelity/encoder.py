"""The space that images are compared in: by itself one that nothing of the run was made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.fidelity.settings import AUTO, KEY, FidelityConfig
from raysynth.models.settings import CLIP
from raysynth.networks.build import Blueprint
from raysynth.networks.settings import CLIP_LORA, SMALL

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""[N, H, W, 3] images of one size -> [N, D]."""
STARTED = ", from which the classifier starts too"
"""Said of a space that is the classifier's own before training: no judgement of another's."""
LABELS = ("a", "b")
"""Of a head that is not used."""


@dataclass(frozen=True)
class Space:
    """An encoder, what it is in words, and whether neither generator nor selection knows it."""

    embed: Embed
    title: str
    independent: bool = True


def open_space(config: FidelityConfig, blueprint: Blueprint, size: int) -> Space:
    """Load the encoder for images of `size` pixels; raises ModelError where it cannot be."""
    name, auto = config.encoder, config.encoder == AUTO
    if name == CLIP or (auto and blueprint.classifier.backbone in (CLIP, CLIP_LORA)):
        from raysynth.models.clip import load_clip

        title = "base.clip, which selection scores with too: not independent"
        return Space(load_clip(blueprint.base).images, title, independent=False)
    if auto:
        return _of_backbone(blueprint, size)
    from raysynth.models.encoder import load_encoder

    same = name == blueprint.classifier.backbone and blueprint.classifier.starts_pretrained
    title = name + STARTED * same
    return Space(load_encoder(name, blueprint.base, config.encoder_revision, KEY).images, title)


def _of_backbone(blueprint: Blueprint, size: int) -> Space:
    """The classifier's network with the weights that it has before it sees any of the images."""
    from raysynth.networks.build import build_model
    from raysynth.networks.network import Network
    from raysynth.networks.settings import EMBEDDED_WIDTHS

    classifier, small = blueprint.classifier, blueprint.classifier.backbone == SMALL
    widths = EMBEDDED_WIDTHS if small else classifier.widths
    as_shipped = {"start": "pretrained", "precision": "float32", "widths": widths}
    classifier = classifier.model_copy(update=as_shipped)
    own = Blueprint(classifier, blueprint.base, blueprint.seed)
    torch.manual_seed(0)  # of the head, which is not used
    network = Network(build_model(classifier, LABELS, size), own, LABELS, size)
    network.model.eval()

    @torch.no_grad()
    def embed(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return network(planes.to(network.device))[0].cpu().numpy()

    title = (
        "the embedded small network, trained on other garments" if small else classifier.backbone
    )
    return Space(embed, title + STARTED * blueprint.classifier.starts_pretrained)
