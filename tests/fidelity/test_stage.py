"""The stage on tiny tables: images like the real ones, others, and few of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raysynth.errors import ModelError
from raysynth.fidelity.checks import check
from raysynth.fidelity.measure import Asked, measure
from raysynth.fidelity.seen import Tables, choose
from raysynth.fidelity.stage import run_fidelity
from raysynth.models.settings import LITE
from raysynth.networks.images import ImageSet
from raysynth.progress import Progress
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage import tables
from raysynth.synthesis.shards import ShardRecord, write_manifest
from tests.networks.test_build import tiny_transformer
from tests.synthesis.random_models import write_encoder
from tests.training.tiny import as_table, tiny_config, tiny_groups, tiny_images

GROUPS = tiny_groups()
SIDE = 16
Change = Callable[[ImageSet], ImageSet]


def write(
    folder: Path, change: Change, made: int = 80, real: tuple[int, ...] = (90,) * 4
) -> Tables:
    """Real images, and generated ones of the same kind after `change`; three of four are kept."""
    for split, share in (("train", 2), ("validation", 1)):
        counts = [count * share // 3 for count in real]
        images = tiny_images(counts, GROUPS, share, split, SIDE)
        schema = tables.with_groups(tables.REAL, GROUPS)
        table = as_table(images, split, GROUPS, schema)
        tables.write_table(table, f"{folder}/real/{split}-00000.parquet")
    images = change(tiny_images([made] * 4, GROUPS, 9, "made", SIDE))
    table = as_table(images, "synthetic", GROUPS, tables.with_groups(SYNTHETIC, GROUPS))
    clusters = pa.array(np.arange(len(images)) % 2, pa.int32())
    place = table.schema.get_field_index("cluster")
    table = table.set_column(place, table.schema.field(place), clusters)
    tables.write_table(table, f"{folder}/synthetic/group-0-00000.parquet")
    write_manifest(
        f"{folder}/synthetic", [ShardRecord("group-0-00000.parquet", 0, len(images), "")], {}
    )
    kept = np.arange(len(images)) % 4 < 3
    group = pa.array(images.group, pa.int32())
    selection = pa.table({"id": images.ids.tolist(), "group": group, "kept": kept})
    tables.write_table(selection, f"{folder}/selection/selection.parquet")
    return Tables(*(f"{folder}/{name}" for name in ("real", "synthetic", "selection")))


def measured(found: Tables, *overrides: str) -> dict:
    from raysynth.networks.build import blueprint_of

    config = tiny_config(*overrides)
    chosen = choose(found, config.fidelity.images, GROUPS.count)
    return measure(Asked(config.fidelity, blueprint_of(config), found, chosen, GROUPS, 1))


def as_they_are(images: ImageSet) -> ImageSet:
    return images


def smudges(images: ImageSet) -> ImageSet:
    """Noise of the real images' mean, of no label."""
    noise = np.random.default_rng(0).integers(0, 200, images.pixels.shape, dtype=np.uint8)
    return replace(images, pixels=noise)


def of_the_other_class(images: ImageSet) -> ImageSet:
    """Group a/2 is drawn as b/2 is."""
    pixels = images.pixels.copy()
    pixels[images.group == 1] = images.pixels[images.group == 3]
    return replace(images, pixels=pixels)


def darker(images: ImageSet) -> ImageSet:
    return replace(images, pixels=images.pixels // 2)


def test_images_of_the_same_kind_are_at_their_floors(tmp_path):
    found = measured(write(tmp_path, as_they_are, made=140, real=(120,) * 4))
    assert found["independent"] and "other garments" in found["encoder"]
    assert found["dimensions"] == 128 and not found["unfaithful"]
    assert found["rows"] == 4 * (120 + 140)
    images = found["images"]
    assert len(set(images["id"])) == 4 * 140 == len(images["label"]) == len(images["attribute"])
    assert images["label"].mean() > 0.9
    for group in found["groups"].values():
        shares = group["agreement"]
        assert shares["real"]["images"] == 120 and shares["kept"]["images"] == 105
        assert min(shares[side][key] for side in shares for key in ("label", "attribute")) > 0.9
        assert shares["kept"]["both"] <= shares["kept"]["label"]
        distances = group["distances"]
        assert distances["n"] == 60 and not distances["unknown"]
        assert 0.6 < distances["frechet"]["value"] / distances["frechet"]["floor"] < 1.6
        assert all(0.6 < one["ratio"] < 1.6 for one in group["spread"].values())
        assert [one["images"] for one in group["clusters"].values()] == [70, 35]
    for one in found["border"].values():  # the label's band crosses it
        assert one["images"] == 105 and one["synthetic"] == pytest.approx(one["real"], abs=0.1)


def test_smudges_are_unfaithful_and_far(tmp_path):
    found = measured(write(tmp_path, smudges, made=140, real=(120,) * 4))
    assert found["unfaithful"]
    for name in found["unfaithful"]:
        group = found["groups"][name]
        assert group["agreement"]["kept"]["label"] < group["needed"] < 1
    for group in found["groups"].values():
        assert group["distances"]["frechet"]["value"] > 3 * group["distances"]["frechet"]["floor"]


def test_a_group_drawn_as_the_other_class_is_named_alone(tmp_path):
    found = measured(write(tmp_path, of_the_other_class))
    assert found["unfaithful"] == ["a/2"]
    assert found["groups"]["a/2"]["agreement"]["kept"]["label"] < 0.1
    assert found["groups"]["a/2"]["agreement"]["kept"]["attribute"] > 0.9


def test_a_level_is_told_beside_the_spread(tmp_path):
    found = measured(write(tmp_path, darker))
    bright = found["groups"]["a/1"]["spread"]["brightness"]
    assert bright["level"] < -20 and bright["high"] < 0.9


def test_what_a_small_group_cannot_tell_is_words(tmp_path):
    found = measured(write(tmp_path, as_they_are, real=(90, 9, 90, 90)))
    small = found["groups"]["a/2"]
    assert small["distances"]["frechet"] is None and "9 real and" in small["distances"]["unknown"]
    assert small["spread"]["brightness"] is None
    assert found["border"]["2"]["real"] is None and found["border"]["1"]["real"] is not None


def test_how_many_are_looked_at(tmp_path):
    folders = write(tmp_path, as_they_are, made=200)
    chosen = choose(folders, 50, GROUPS.count)
    assert len(chosen.kept) == 4 * 50 and len(chosen.rejected) == 4 * 50
    assert len(chosen.real) == 4 * 45  # every second of 90
    assert chosen.sizes_kept.tolist() == [150] * 4
    assert (
        measured(folders, "fidelity.images=50")["groups"]["a/1"]["agreement"]["kept"]["images"]
        == 50
    )


@pytest.mark.parametrize("name", ["fidelity.encoder=clip", "classifier.backbone=clip"])
def test_clip_is_said_to_be_known_to_selection(tmp_path, name):
    found = measured(write(tmp_path, as_they_are, made=40), name)
    assert not found["independent"] and "not independent" in found["encoder"]
    assert found["dimensions"] == 64


def test_a_named_model_is_the_space(tmp_path):
    """The classifier's backbone as it is before training; or any encoder."""
    folders = write(tmp_path / "run", as_they_are, made=40)
    backbone = tiny_transformer("resnet", str(tmp_path / "resnet"))
    found = measured(folders, f"classifier.backbone={backbone}")
    assert found["encoder"] == f"{backbone}, from which the classifier starts too"
    assert found["independent"] and found["dimensions"] == 16
    scratch = measured(folders, f"classifier.backbone={backbone}", "classifier.start=scratch")
    assert scratch["encoder"] == backbone
    encoder = write_encoder(tmp_path / "encoder", "dinov2")
    found = measured(folders, f"fidelity.encoder={encoder}")
    assert found["encoder"] == str(encoder) and found["dimensions"] == 32


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ([f"fidelity.encoder={LITE}"], False),
        ([f"fidelity.encoder={LITE}", f"classifier.backbone={LITE}"], True),
        ([f"classifier.backbone={LITE}"], True),
    ],
)
def test_a_space_that_is_the_backbone_s_own_is_said_to_be(tmp_path, given, same):
    found = measured(write(tmp_path, as_they_are, made=12, real=(12,) * 4), *given)
    assert found["encoder"] == LITE + ", from which the classifier starts too" * same
    assert found["dimensions"] == 1280 and found["independent"]


def test_a_wrong_encoder_is_refused_by_its_own_key():
    check(tiny_config())
    with pytest.raises(ModelError, match=r"fidelity\.encoder: /nowhere lacks config\.json"):
        check(tiny_config("fidelity.encoder=/nowhere"))


def test_the_stage_writes_numbers_and_pictures(ray_local, tmp_path):
    folders, said = write(tmp_path, of_the_other_class), []
    progress = Progress()
    progress.say = lambda text, **more: said.append(text)
    facts = run_fidelity(tiny_config(), folders, GROUPS, str(tmp_path / "work"), progress)
    written = json.loads((tmp_path / "work/fidelity.json").read_text())
    assert written["groups"]["a/1"].pop("clusters")["0"]["images"] == 40
    assert facts["groups"]["a/1"] == written["groups"]["a/1"]
    assert "clusters" not in facts["groups"]["b/1"] and facts["unfaithful"] == ["a/2"]
    assert len(said) == 1 and re.search(r"a/2: \d % of 60 kept", said[0])
    sheet = Image.open(tmp_path / "work/unfaithful.png")
    assert sheet.height > 2 * 3 * SIDE and sheet.width >= 420
