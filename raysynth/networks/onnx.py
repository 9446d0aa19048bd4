"""A classifier as one ONNX file, for those who run it without torch."""

from __future__ import annotations

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raysynth.errors import ConfigError
from raysynth.networks.network import Network

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript")


def check_onnx() -> None:
    """Refuse, before anything is loaded, where the packages are not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--onnx: {' and '.join(missing)} not installed; expected what torch exports by. Fix: "
            "pip install 'raysynth[onnx]'"
        )


def write_onnx(network: Network, folder: str | Path) -> Path:
    """Write `model.onnx` into a local folder: one file with its weights.

    `pixel_values` [batch, 3, size, size] float32, normalised, to `logits` [batch, K]; any batch.
    What a reader needs besides is in the file's metadata, as JSON: `labels`, `size` (pixels),
    `mean` and `std` (of pixels in [0, 1]).
    """
    path = Path(folder) / FILE
    model = _Logits(network.model).cpu().eval()
    example = torch.zeros(2, 3, network.size, network.size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's own deprecations
        program: Any = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
        )
    told = {"labels": network.label_names, "size": network.size}
    told |= {"mean": network.mean, "std": network.std}
    properties = program.model.metadata_props
    properties.update({name: json.dumps(value) for name, value in told.items()})
    program.save(str(path), external_data=False)
    return path


class _Logits(nn.Module):
    """Any of our classifiers, without the wrapping of its outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        found = self.model(pixel_values)
        return found if isinstance(found, Tensor) else found.logits
