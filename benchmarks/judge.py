"""The judge: how many generated images show the garment and the ground that were asked for.

`judge.safetensors` (bfloat16) was trained by `python -m pretraining --stage judge`
on garments that outfits does not contain, in both renderings; it is not part of the package.
"""

from __future__ import annotations

from pathlib import Path

import checkout  # noqa: F401
import numpy as np
import safetensors.torch
import torch

from pretraining.judge import Judge
from pretraining.words import GROUNDS
from raysynth.datasets.garments import CLASSES
from raysynth.groups.groups import Groups

WEIGHTS = Path(__file__).with_name("judge.safetensors")


def load_judge() -> Judge:
    """The judge in evaluation mode, float32, on the CPU."""
    judge = Judge()
    weights = safetensors.torch.load_file(WEIGHTS)
    judge.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}
    )
    return judge.eval().requires_grad_(False)


def accuracies(
    judge: Judge, pixels: np.ndarray, group: np.ndarray, groups: Groups
) -> dict[str, float]:
    """Shares of images [N, 32, 32, 3] uint8 whose garment, ground and both are their group's."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    garments, grounds = (seen.numpy() for seen in judge.verdict(images))
    label = np.array([groups.label(g) for g in range(groups.count)])[group]
    attribute = np.array([groups.attribute(g) for g in range(groups.count)])[group]
    right = np.array([CLASSES.index(name) for name in groups.label_names])[label] == garments
    place = np.array([GROUNDS.index(name) for name in groups.attribute_names])[attribute] == grounds
    return {
        "garment": float(right.mean()),
        "ground": float(place.mean()),
        "both": float((right & place).mean()),
    }
