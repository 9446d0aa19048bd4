"""What a base learns from: labels and attributes, a column, images alone; and what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

from raysynth.errors import ConfigError, DataError
from raysynth.pretraining.material import list_material


def listed(order):
    return list_material(order.dataset, order.prompts, order.settings, order.seed)


def test_test_images_are_never_seen(order):
    source = listed(order("dataset.validation_share=0.25", "dataset.test_share=0.25"))
    assert len(source.ids) == 108
    assert (len(source.material.trained), len(source.material.measured)) == (72, 36)
    opened = source.opened(16)
    assert opened.pixels.shape == (108, 3, 16, 16) and opened.pixels.dtype == torch.uint8
    red = opened.label == opened.groups.label_names.index("red")
    means = opened.pixels.float().mean((2, 3))
    assert (means[red][:, 0] > means[red][:, 2]).all()
    assert (means[~red][:, 0] < means[~red][:, 2]).all()


def test_rare_groups_are_drawn_as_often_as_is_asked(order):
    few = ("dataset.validation_share=0.06", "dataset.test_share=0.06")
    material = listed(order("dataset.severity=0.9", *few)).material
    group = (material.label * 2 + material.attribute)[material.trained]
    sizes = torch.bincount(group).float()
    assert len(set(sizes.tolist())) > 1
    for balance in (0.0, 0.5, 1.0):
        weights = material.weights(balance)
        shares = torch.stack([weights[group == g].sum() for g in range(4)])
        expected = sizes ** (1 - balance)
        assert torch.allclose(shares / shares.sum(), expected / expected.sum())


def test_a_column_and_images_alone(order):
    folder = ("dataset.name=folder", "pretraining.captions=column")
    material = listed(order(*folder)).material
    assert len(material.captions.texts) == 13 and len(material.label) == 144
    assert material.captions.first((0, -1)) == "a red square at day 0"
    assert 0 < len(material.measured) < 40
    silent = listed(order("pretraining.captions=none")).material
    assert silent.captions.texts == ("",) and len(silent.label) == 144


def test_labels_without_attributes(order):
    settings = ("dataset.attributes=unknown", "dataset.name=tree")
    material = listed(order(*settings)).material
    assert set(material.label.tolist()) == {0, 1}
    assert set(material.captions.said) >= {(0, -1), (1, -1)}


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        (("dataset.missing=0.3",), ConfigError, "masks or noise are known of images"),
        (("pretraining.captions=column", "pretraining.column=text"), DataError, "text missing"),
        (("pretraining.captions=column", "pretraining.column=said"), DataError, "column names"),
        (("pretraining.captions=none", "dataset.name=hub"), ConfigError, "dataset.name=hub"),
    ],
)
def test_refusals_name_what_is_missing_and_the_fix(order, settings, kind, said):
    with pytest.raises(kind, match=said) as refused:
        listed(order(*settings))
    assert "Fix: " in str(refused.value)


def test_captions_of_spaces_are_refused_as_empty_ones_are(order, tmp_path):
    (tmp_path / "blank").mkdir()
    rows = "file_name,caption\na.png,a cog\nb.png,  \nc.png,\n"
    (tmp_path / "blank" / "metadata.csv").write_text(rows)
    given = order(f"dataset.path={tmp_path}/blank", "pretraining.captions=column")
    with pytest.raises(DataError, match=r"2 row\(s\) with an empty file_name or caption"):
        listed(given)


def test_too_few_images_are_refused(order, tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "metadata.csv").write_text("file_name,caption\na.png,a cog\n")
    (tmp_path / "few" / "a.png").write_bytes(b"")
    given = order(
        "dataset.name=folder", f"dataset.path={tmp_path}/few", "pretraining.captions=column"
    )
    with pytest.raises(DataError, match=r"expected 64 and 1 at least\. Fix: "):
        listed(given)


@pytest.mark.parametrize("captions", ["words", "none"])
def test_files_that_are_no_images_are_named_before_workers_start(
    order, pictures, tmp_path, captions
):
    root = tmp_path / "pictures"
    shutil.copytree(pictures, root)
    (root / "red/day/bad.png").write_text("no picture")
    given = (f"dataset.path={root}", f"pretraining.captions={captions}")
    with pytest.raises(DataError, match=r"1 image.*red/day/bad\.png: none of .*on_error=skip"):
        listed(order(*given)).check_heads()
    listed(order(*given, "dataset.on_error=skip")).check_heads()
