"""Licences of what a run is made of, where they are known; else nobody is told one.

A folder of a model or a data set may have a card (README.md) that says it; of the hub's models the
local cache may have one. Nothing is asked for over the network.
"""

from __future__ import annotations

from pathlib import Path

from raysynth.datasets.settings import DatasetConfig
from raysynth.models.settings import LITE
from raysynth.models.sources import is_path

UNKNOWN = "unknown: ask the owner"
OWN = {
    "embedded": "Apache-2.0 (raysynth's own)",
    "small": "Apache-2.0 (raysynth's own)",
    LITE: "Apache-2.0 (EfficientNet-Lite0 of TensorFlow, trained on ImageNet)",
}
COMPOSED = "garments of Fashion-MNIST (MIT, Zalando SE) on photographs of scikit-image (CC0)"


def of_model(name: str, revision: str | None = None) -> str:
    """The licence of a model by its name in a configuration, or `UNKNOWN`."""
    if name in OWN:
        return OWN[name]
    return _said(Path(name).expanduser() if is_path(name) else _cached(name, revision)) or UNKNOWN


def of_data(dataset: DatasetConfig) -> str:
    """The licence of a data set, or `UNKNOWN`."""
    if dataset.name == "outfits":
        return COMPOSED
    return _said(Path(dataset.path or "").expanduser()) or UNKNOWN


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "README.md", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _said(folder: Path | None) -> str:
    """What the header of a folder's card says; "": nothing."""
    from huggingface_hub import metadata_load

    try:
        card = metadata_load(folder / "README.md") if folder else None
    except (OSError, ValueError):
        return ""
    licence = (card or {}).get("license_name") or (card or {}).get("license")
    return str(licence) if isinstance(licence, str) else ""
