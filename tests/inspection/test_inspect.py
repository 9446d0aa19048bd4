"""The audit of a data set: biased ones are called so, shortcuts and doubles named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from raysynth.errors import DataError
from raysynth.inspection import inspect, properties
from raysynth.inspection.findings import is_unfair
from raysynth.inspection.inspect import audit_data
from raysynth.inspection.page import page
from tests.datasets.trees import write_garments, write_tree

SIZES = ["dataset.train_images=120", "dataset.validation_images=80", "dataset.test_images=40"]


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    folder = tmp_path_factory.mktemp("biased") / "garments"
    return write_garments(folder, *SIZES, "dataset.severity=0.95")


@pytest.fixture(scope="module")
def found(biased):
    return audit_data(biased)


def test_a_biased_folder_is_called_biased_and_balancing_helps(found):
    assert found.known and found.association > 0.8
    assert is_unfair(found) and "Biased" in found.verdict
    assert found.balanced.wga > found.plain.wga + 0.1
    assert found.groups.names[found.plain.worst] in found.verdict
    assert found.counts["train"].sum() == 120 and found.looked_at == 240


def test_the_ground_is_named_as_a_shortcut(found):
    told = " ".join(found.warnings)
    assert "alone tells the label" in told and "tells the attribute too" in told
    assert {each.name for each in found.properties[:3]} & {"redness", "greenness", "blueness"}


def test_tables_and_page_say_the_same_and_the_page_is_one_file(found):
    text, whole = str(found), page(found)
    for name in found.groups.names:
        assert name in text and name in whole
    assert "◀ worst" in text and "(worst)" in whole
    assert "http" not in whole and "<script" not in whole and whole.count("data:image/png") > 8
    assert found.next_step.split("`")[0] in " ".join(text.split())


def test_a_balanced_folder_shows_no_harm(tmp_path):
    even = write_garments(tmp_path / "even", *SIZES, "dataset.severity=0.5")
    assert not is_unfair(audit_data(even))


def test_labels_alone_say_what_can_be_said(tmp_path, biased):
    for label in ("coat", "pullover"):
        for image in biased.glob(f"*/{label}/*/*.png"):
            (tmp_path / "alone" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, tmp_path / "alone" / label)
    found = audit_data(tmp_path / "alone")
    assert not found.known and found.groups.count == 2
    assert "Attributes are not known" in found.verdict and "attributes=unknown" in found.next_step
    assert all(each.attribute is None for each in found.properties)
    assert found.names == ["coat", "pullover"] and "unknown" not in found.verdict
    assert "Cram" not in str(found) and "Cram" not in page(found)


def test_doubles_across_splits_and_of_two_labels_are_named(tmp_path, biased):
    folder = tmp_path / "doubled"
    shutil.copytree(biased, folder)
    first = next((folder / "train/coat/gravel").iterdir())
    shutil.copy(first, folder / "test/pullover/gravel/same.png")
    told = " ".join(audit_data(folder).warnings)
    assert "in different splits" in told and "with different labels" in told


def test_few_validation_images_cannot_tell(tmp_path):
    sizes = {f"{y}/{a}": 12 for y in ("cat", "dog") for a in ("day", "night")}
    found = audit_data(write_tree(tmp_path, sizes, side=32))
    assert "Cannot be told" in found.verdict or is_unfair(found)


def test_without_cleanvision_the_rest_is_said(biased, monkeypatch):
    monkeypatch.setattr(properties, "is_installed", lambda: False)
    found = audit_data(biased, most=60)
    assert found.properties is None and "raysynth[audit]" in " ".join(found.warnings)
    assert found.looked_at <= 160


def test_broken_images_are_counted_and_a_split_without_any_is_refused(tmp_path, biased):
    folder = tmp_path / "broken"
    shutil.copytree(biased, folder)
    for image in (folder / "validation").rglob("*.png"):
        image.write_bytes(b"none")
    with pytest.raises(DataError, match="no validation image can be read"):
        audit_data(folder)


def test_a_property_of_noise_tells_nothing_even_of_a_rare_label():
    rng = np.random.default_rng(0)
    rare = np.array([0] * 270 + [1] * 30)
    assert abs(properties.tells(rng.random(300), rare) - 0.5) < 0.15
    assert properties.tells(rare + 0.1 * rng.random(300), rare) > 0.95
    assert properties.tells(np.ones(300), rare) == 0.5


def test_the_settings_of_a_file_are_taken(tmp_path, biased):
    file = tmp_path / "own.yaml"
    file.write_text(f"name: own\ndataset: {{name: tree, path: {biased}}}\n")
    found = audit_data(file, "dataset.severity=0.9", most=40)
    assert found.name == "own" and found.source == str(file)
    assert found.looked_at < inspect.MOST


def test_pictures_of_any_size_are_looked_at(tmp_path):
    folder = write_tree(tmp_path, {f"{y}/{a}": 8 for y in "ab" for a in "xy"}, side=16)
    Image.new("RGB", (64, 24)).save(folder / "a/x/wide.png")
    assert audit_data(folder).unreadable == 0
