"""outfits: garments of Fashion-MNIST on photographed grounds, composed here; nothing is downloaded.

Their composition is `raysynth.datasets.outfits`, which the default configuration does not load.
"""

from __future__ import annotations

from raysynth.datasets.layout import Dataset, Layout
from raysynth.datasets.settings import DatasetConfig

SEVERITY = 0.99
SIDE = 32


def _check(config: DatasetConfig) -> None:
    if config.aligned:
        raise ValueError(
            "dataset.aligned: outfits is composed with its first garment on its first ground "
            "and its second on its second. Fix: remove it, or swap the names in dataset.pair"
        )
    if config.severity == "original":
        raise ValueError("dataset.severity: outfits is composed, give a number such as 0.99")
    if config.pair[0] == config.pair[1]:
        raise ValueError(f"dataset.pair: two different garments expected, got {config.pair}")


def _open(config: DatasetConfig, seed: int) -> Dataset:
    from raysynth.datasets.outfits import Outfits

    return Outfits(
        pair=config.pair,
        severity=float(config.severity),
        train_images=config.train_images,
        validation_images=config.validation_images,
        test_images=config.test_images,
        idx_path=config.path,
        seed=seed,
    )


def _garments(config: DatasetConfig) -> tuple[str, ...]:
    return config.pair


PART = Layout(
    title="outfits",
    source="Fashion-MNIST (Xiao et al. 2017) on CC0 photographs of scikit-image",
    reads="nothing; or Fashion-MNIST's four IDX files, for larger sets than the embedded ones",
    open=_open,
    check=_check,
    severity=SEVERITY,
    has_files=False,
    is_composed=True,
    side=SIDE,
    garments=_garments,
)
