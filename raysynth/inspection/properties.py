"""What images are like apart from what they show, and whether that tells label or attribute.

Brightness, darkness, blur, information, size and proportions by cleanvision, whose scores Datalab
of cleanlab uses too; mean colours by a few lines here. How well a property tells a column is the
balanced accuracy of a tree of depth two on it alone, cross-validated: chance is 1 / names.
(Datalab's own score takes the most common label's index for its share, see
findings/cleanlab_spurious_baseline_is_an_index.sh.)
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raysynth.storage.tables import STORED

PROPERTIES = {
    "dark_score": "darkness",
    "light_score": "brightness",
    "blurry_score": "blur",
    "low_information_score": "information",
    "odd_size_score": "size",
    "odd_aspect_ratio_score": "proportions",
    "grayscale_score": "gray",
}
"""cleanvision's columns, in words."""
FIX = "pip install 'raysynth[audit]'"
FOLDS = 5
CLEARLY = 0.15
"""Above chance from which a property is named, in balanced accuracy."""


@dataclass(frozen=True)
class Property:
    """How well one property tells label and attribute; balanced accuracies, shares of 1."""

    name: str
    label: float
    attribute: float | None
    """None: attributes are not known."""


@dataclass(frozen=True)
class Double:
    """Images that look the same, by their ids."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[int, ...]
    exact: bool

    @property
    def crosses(self) -> bool:
        """Whether they are in more than one split."""
        return len(set(self.splits)) > 1

    @property
    def contradicts(self) -> bool:
        """Whether they have different labels."""
        return len(set(self.labels)) > 1


def is_installed() -> bool:
    """Whether cleanvision is here."""
    return find_spec("cleanvision") is not None


def measured(
    images: Sequence[bytes],
) -> tuple[dict[str, NDArray[np.float64]], list[tuple[list[int], bool]]]:
    """Property -> [N] values; and (places, exact) of images that look the same.

    Pictures lie in a temporary folder meanwhile: cleanvision reads files.
    """
    found = _colours(images)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, data in enumerate(images):
            kind = Image.open(io.BytesIO(data), formats=STORED).format or "png"
            path = Path(folder) / f"{number}.{kind.lower()}"
            path.write_bytes(data)
            paths.append(str(path))
        from cleanvision import Imagelab

        lab = Imagelab(filepaths=paths)
        kinds = [name.removesuffix("_score") for name in PROPERTIES]
        doubles = ("near_duplicates", "exact_duplicates")
        with contextlib.redirect_stderr(io.StringIO()):  # its bars
            lab.find_issues({kind: {} for kind in (*kinds, *doubles)}, n_jobs=1, verbose=False)
        scores = lab.issues.reindex(paths)
        for column, name in PROPERTIES.items():
            if column in scores:
                found[name] = scores[column].to_numpy(np.float64)
        place = {path: number for number, path in enumerate(paths)}
        sets = [
            (sorted(place[path] for path in each), kind == "exact_duplicates")
            for kind in doubles
            for each in lab.info[kind]["sets"]
        ]
    return found, sets


def _colours(images: Sequence[bytes]) -> dict[str, NDArray[np.float64]]:
    """Mean red, green and blue against the images' brightness."""
    opened = (Image.open(io.BytesIO(data), formats=STORED) for data in images)
    pixels = [np.asarray(each.resize((1, 1), Image.Resampling.BOX)) for each in opened]
    means = np.array(pixels, np.float64).reshape(-1, 3)
    off = means - means.mean(axis=1, keepdims=True)
    return {name: off[:, place] for place, name in enumerate(("redness", "greenness", "blueness"))}


def tells(values: NDArray[np.float64], column: NDArray[np.int64]) -> float:
    """Balanced accuracy at which one property alone tells a column's names, cross-validated."""
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    least = int(np.bincount(column)[np.unique(column)].min())
    if len(np.unique(column)) < 2 or least < 2 or np.ptp(values) == 0:
        return 1.0 / max(1, len(np.unique(column)))
    tree = DecisionTreeClassifier(max_depth=2, min_samples_leaf=5, class_weight="balanced")
    folds = min(FOLDS, least)
    scores = cross_val_score(tree, values[:, None], column, cv=folds, scoring="balanced_accuracy")
    return float(scores.mean())


def properties(
    values: Mapping[str, NDArray[np.float64]],
    label: NDArray[np.int64],
    attribute: NDArray[np.int64] | None,
) -> list[Property]:
    """Every property, the one that tells the label best first."""
    found = [
        Property(name, tells(each, label), None if attribute is None else tells(each, attribute))
        for name, each in values.items()
    ]
    return sorted(found, key=lambda each: -each.label)
