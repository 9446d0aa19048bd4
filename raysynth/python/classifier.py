"""The shipped classifier as a function of images."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysynth.storage.files import open_storage

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

Picture = Any
"""A PIL image, encoded bytes, or a path."""
BATCH = 64


@dataclass(frozen=True)
class Classifier:
    """A transformers model with its preprocessor; `labels` in the order of its outputs."""

    model: Any
    processor: Any
    labels: tuple[str, ...]

    @classmethod
    def open(cls, folder: str) -> Classifier:
        """Of a folder or URI that `save_pretrained` wrote."""
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        import raysynth.networks.saved  # noqa: F401  its models are known to the Auto classes

        storage, name = open_storage(folder)
        with tempfile.TemporaryDirectory() as copy:
            if not storage.is_disk:
                storage.get(name, f"{copy}/model", recursive=True)
                name = f"{copy}/model"
            model = AutoModelForImageClassification.from_pretrained(name).eval()
            processor = AutoImageProcessor.from_pretrained(name)
        named = model.config.id2label
        return cls(model, processor, tuple(named[number] for number in range(len(named))))

    def __call__(self, images: Sequence[Picture] | Picture) -> list[str]:
        """The label of each image."""
        return [str(name) for name in self.probabilities(images).idxmax(axis=1)]

    def probabilities(self, images: Sequence[Picture] | Picture) -> pd.DataFrame:
        """A row per image, a column per label; they sum to 1."""
        import pandas as pd
        import torch

        given = images if isinstance(images, Sequence) and not _is_one(images) else [images]
        rows = []
        with torch.no_grad():
            for start in range(0, len(given), BATCH):
                batch = [_opened(each) for each in given[start : start + BATCH]]
                pixels = self.processor(batch, return_tensors="pt")
                rows += self.model(**pixels).logits.float().softmax(-1).tolist()
        return pd.DataFrame(rows, columns=list(self.labels))


def _is_one(value: Any) -> bool:
    return isinstance(value, str | bytes)


def _opened(picture: Picture) -> Image.Image:
    """8-bit RGB as training images are read: turned upright, transparency on white."""
    from PIL import Image

    from raysynth.datasets.pictures import to_rgb_bytes

    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, bytes):
        data = picture
    else:
        storage, name = open_storage(os.fspath(picture))
        data = storage.cat_file(name)
    return Image.open(io.BytesIO(to_rgb_bytes(data))).convert("RGB")
