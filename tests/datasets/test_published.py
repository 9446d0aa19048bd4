"""Waterbirds, CelebA and UTKFace in exactly their published layouts, small."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console

from raysynth.config.files import load_config
from raysynth.datasets.ingest import ingest
from raysynth.datasets.layouts.celeba import CelebA
from raysynth.datasets.layouts.utkface import UTKFace
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import Groups, aligned_groups, subsample_to_severity
from raysynth.progress import Progress
from raysynth.search.space import search_space
from raysynth.storage.tables import read_table

FORTY = [
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
]


def write_image(path, shape=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape, (200, 100, 50)).save(path)


def write_waterbirds(folder, each=3):
    """Every combination of y, place and split, `each` times."""
    rows = []
    for y in (0, 1):
        for place in (0, 1):
            for split in (0, 1, 2):
                for number in range(each):
                    name = f"00{y}.Some_Bird/Some_Bird_{place}{split}{number}.jpg"
                    write_image(folder / name)
                    rows.append((len(rows) + 1, name, y, split, place, "/f/forest.jpg"))
    columns = ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "metadata.csv", index=False)
    return folder


def write_celeba(folder, each=3):
    """Every combination of Blond_Hair, Male and split; Smiling where Male."""
    lines, parts = [], []
    for blond in (-1, 1):
        for male in (-1, 1):
            for split in (0, 1, 2):
                for _ in range(each):
                    name = f"{len(lines) + 1:06d}.jpg"
                    values = dict.fromkeys(FORTY, -1) | {"Blond_Hair": blond, "Male": male}
                    values["Smiling"] = -male if len(lines) % 2 else male
                    # The published file is padded to two characters.
                    lines.append(f"{name} " + " ".join(f"{v:2d}" for v in values.values()))
                    parts.append(f"{name} {split}")
                    write_image(folder / "img_align_celeba" / name, (178, 218))
    text = "\n".join([str(len(lines)), " ".join(FORTY) + " ", *lines, ""])
    (folder / "list_attr_celeba.txt").write_text(text)
    (folder / "list_eval_partition.txt").write_text("\n".join([*parts, ""]))
    return folder


def write_utkface(folder, each=20):
    for age in (3, 30, 12):
        for gender in (0, 1):
            for number in range(each):
                race = number % 5
                name = f"{age}_{gender}_{race}_2017010417{number:07d}.jpg.chip.jpg"
                write_image(folder / f"part{gender + 1}" / name)
    write_image(folder / "part1" / "39_1_20170116174525125.jpg.chip.jpg")  # a published slip
    return folder


def listed(name, folder, *overrides, seed=0):
    config = load_config(None, [f"dataset.name={name}", f"dataset.path={folder}", *overrides])
    _, groups, listing = list_dataset(config.dataset, seed)
    return groups, listing, split_counts(listing, groups)


def test_waterbirds_reads_the_published_metadata(tmp_path):
    groups, listing, counts = listed("waterbirds", write_waterbirds(tmp_path))
    assert groups.label_names == ("landbird", "waterbird")
    assert groups.attribute_names == ("land", "water")
    assert [counts[s].tolist() for s in ("train", "validation", "test")] == [[3] * 4] * 3
    row = listing["id"].to_pylist().index("001.Some_Bird/Some_Bird_021.jpg")
    assert (listing["label"][row].as_py(), listing["attribute"][row].as_py()) == (1, 0)
    assert listing["split"][row].as_py() == "test"


def test_celeba_reads_the_published_lists(tmp_path):
    groups, listing, counts = listed("celeba", write_celeba(tmp_path))
    assert groups.label_names == ("not_blond_hair", "blond_hair")
    assert groups.attribute_names == ("female", "male")
    assert groups.label_words == ("person with dark hair", "person with blond hair")
    assert [counts[s].tolist() for s in ("train", "validation", "test")] == [[3] * 4] * 3
    assert listing["id"][0].as_py() == "000001.jpg"


def test_celeba_takes_any_pair_of_the_forty(tmp_path):
    write_celeba(tmp_path, each=4)
    pair = ("dataset.label=Smiling", "dataset.attribute=Male")
    groups, listing, _ = listed("celeba", tmp_path, *pair)
    assert groups.label_names == ("not_smiling", "smiling")
    assert set(listing["label"].to_pylist()) == {0, 1}
    groups, *_ = listed("celeba", tmp_path, "dataset.label=Male", "dataset.attribute=Blond_Hair")
    assert groups.label_names == ("female", "male")
    with pytest.raises(ConfigError, match=r"dataset\.label: no attribute 'Blonde'.*Blond_Hair"):
        listed("celeba", tmp_path, "dataset.label=Blonde")


def test_utkface_names_are_its_metadata(tmp_path):
    groups, listing, counts = listed("utkface", write_utkface(tmp_path))
    assert groups.label_names == ("male", "female") and groups.attribute_names == ("old", "young")
    assert not any(
        name.split("/")[1].startswith(("12_", "39_")) for name in listing["id"].to_pylist()
    )
    assert counts["train"].tolist() == [16] * 4
    assert counts["validation"].tolist() == counts["test"].tolist() == [2] * 4
    again = listed("utkface", tmp_path, seed=1)[1]
    assert not listing.equals(again)


def test_utkface_takes_one_file_of_each_name_and_says_what_it_leaves_out(tmp_path):
    _, before, _ = listed("utkface", write_utkface(tmp_path))
    assert before.schema.metadata[b"left_out"].decode() == (
        "left out: 1 whose name gives no age, gender and race "
        "(part1/39_1_20170116174525125.jpg.chip.jpg); 40 of ages from 6 to 19 or above 50"
    )
    name = before["id"][0].as_py().split("/")[1]
    write_image(tmp_path / "copy" / name)
    write_image(tmp_path / "a_photograph" / name.replace(".chip.jpg", ""))
    _, again, _ = listed("utkface", tmp_path)
    assert [sum(name.split(".")[0] in i for i in t["id"].to_pylist()) for t in (before, again)] == [
        1,
        1,
    ]
    assert len(again) == len(before)
    assert b"2 of the same name as one that is kept" in again.schema.metadata[b"left_out"]


@pytest.mark.parametrize(
    "end",
    [
        *(".pg.chip.jpg", " .jpg.chip.jpg", "jpg.chip.jpg", ".JPG", "_.jpg"),
        *(".jpeg", ".JPEG", ".jpg.chip.jpeg", ".png"),
    ],
)
def test_utkface_reads_misspelt_ends_of_names(tmp_path, end):
    write_image(write_utkface(tmp_path) / f"24_0_1_20170116220224657{end}")
    _, listing, _ = listed("utkface", tmp_path)
    row = listing["id"].to_pylist().index(f"24_0_1_20170116220224657{end}")
    assert (listing["label"][row].as_py(), listing["attribute"][row].as_py()) == (0, 0)


def test_utkface_takes_any_pair(tmp_path):
    write_utkface(tmp_path, each=25)
    pair = ("dataset.label=race", "dataset.attribute=gender")
    groups, listing, _ = listed("utkface", tmp_path, *pair)
    assert groups.count == 10 and groups.label_names[1] == "black"
    assert len(listing) == 3 * 2 * 25  # without age no age is left out
    with pytest.raises(ConfigError, match=r"dataset\.label: got 'Male'; expected one of gender"):
        listed("utkface", tmp_path, "dataset.label=Male")


@pytest.mark.parametrize(
    ("name", "write", "gone", "says"),
    [
        ("waterbirds", write_waterbirds, "metadata.csv", r"no .*metadata\.csv; expected\n"),
        ("celeba", write_celeba, "list_attr_celeba.txt", r"no .*list_attr_celeba\.txt; expected\n"),
        ("celeba", write_celeba, "list_eval_partition.txt", "no .*list_eval_partition"),
        ("celeba", write_celeba, "img_align_celeba/000002.jpg", r"000002\.jpg named in list_attr"),
    ],
)
def test_a_missing_file_gets_the_expected_tree(tmp_path, name, write, gone, says):
    (write(tmp_path) / gone).unlink()
    with pytest.raises(DataError, match=says):
        listed(name, tmp_path)


def test_foreign_files_are_refused_with_the_expected_tree(tmp_path):
    birds = write_waterbirds(tmp_path / "birds")
    frame = pd.read_csv(birds / "metadata.csv")
    frame.rename(columns={"place": "background"}).to_csv(birds / "metadata.csv", index=False)
    with pytest.raises(
        DataError, match=r"column\(s\) place missing; got img_id.*\n.*metadata\.csv"
    ):
        listed("waterbirds", birds)
    frame.assign(split=7).to_csv(birds / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"split is .*7.* in row 1; expected 0 or 1 or 2"):
        listed("waterbirds", birds)
    faces = write_celeba(tmp_path / "faces")
    lines = (faces / "list_attr_celeba.txt").read_text().splitlines()
    (faces / "list_attr_celeba.txt").write_text("\n".join([*lines[:-1], "000036.jpg 1 -1"]))
    with pytest.raises(DataError, match=r"first foreign row begins '000036\.jpg 1 -1'; expected\n"):
        listed("celeba", faces)
    (tmp_path / "other").mkdir()
    write_image(tmp_path / "other" / "cat.jpg")
    with pytest.raises(DataError, match=r"none of 1 files .* has a UTKFace name, e\.g\. cat\.jpg"):
        listed("utkface", tmp_path / "other")


def test_an_attribute_is_not_its_own_label_by_default(tmp_path):
    celeba, faces = write_celeba(tmp_path / "celeba"), write_utkface(tmp_path / "faces")
    for name, folder, label in (("celeba", celeba, "Male"), ("utkface", faces, "age")):
        with pytest.raises(
            ConfigError, match=rf"dataset\.attribute: another one than the label {label} expected"
        ):
            listed(name, folder, f"dataset.label={label}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[1:], r"the first line is not the number of images but '5_o_Clock"),
        (
            lambda lines: [lines[0], lines[1].replace("Young", "Male"), *lines[2:]],
            "Male named more than once in the second line",
        ),
        (lambda lines: [*lines[:2], "x" * 9999], "the first foreign row begins 'xxx"),
        (lambda lines: [*lines[:2], *(f"{line} 1" for line in lines[2:])], "first foreign row"),
    ],
)
def test_celebas_list_is_refused_for_what_it_is(tmp_path, change, says):
    file = write_celeba(tmp_path) / "list_attr_celeba.txt"
    file.write_text("\n".join(change(file.read_text().splitlines())))
    with pytest.raises(DataError, match=says) as refused:
        listed("celeba", tmp_path)
    assert len(str(refused.value)) < 1000


def test_waterbirds_rows_are_as_long_as_the_header(tmp_path):
    file = write_waterbirds(tmp_path) / "metadata.csv"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *(f"{row},more" for row in rows)]))
    with pytest.raises(DataError, match=r"metadata\.csv: cannot be read as a table: .*saw 7"):
        listed("waterbirds", tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match="a file was expected, got a folder"):
        listed("waterbirds", tmp_path)


def test_missing_images_get_the_expected_tree(tmp_path):
    birds = write_waterbirds(tmp_path / "birds")
    (birds / "000.Some_Bird" / "Some_Bird_000.jpg").unlink()
    with pytest.raises(DataError, match=r"not there.*; expected\n.*metadata\.csv"):
        listed("waterbirds", birds)
    faces = write_celeba(tmp_path / "faces")
    (faces / "img_align_celeba" / "000001.jpg").unlink()
    with pytest.raises(DataError, match=r"not there.*; expected\n.*list_attr_celeba"):
        listed("celeba", faces)


def test_waterbirds_numbers_may_be_decimal_and_empty_names_are_refused(tmp_path):
    _, before, _ = listed("waterbirds", write_waterbirds(tmp_path))
    frame = pd.read_csv(tmp_path / "metadata.csv")
    decimal = frame.astype({"y": float, "split": float, "place": float})
    decimal.to_csv(tmp_path / "metadata.csv", index=False)
    assert listed("waterbirds", tmp_path)[1].equals(before)
    frame.loc[1, "img_filename"] = None
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"img_filename is empty in row 2; expected a file"):
        listed("waterbirds", tmp_path)


def test_an_image_in_two_rows_is_refused(tmp_path):
    birds = write_waterbirds(tmp_path / "birds")
    frame = pd.read_csv(birds / "metadata.csv")
    again = frame.head(1).assign(split=2, img_filename="./" + frame["img_filename"][0])
    pd.concat([frame, again]).to_csv(birds / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"000\.jpg named more than once in metadata\.csv"):
        listed("waterbirds", birds)
    faces = write_celeba(tmp_path / "faces")
    partition = faces / "list_eval_partition.txt"
    whole = partition.read_text()
    partition.write_text(whole + "000001.jpg 2\n")
    with pytest.raises(DataError, match=r"000001\.jpg named more than once in list_eval"):
        listed("celeba", faces)
    partition.write_text(whole)
    _, names, *rows = (faces / "list_attr_celeba.txt").read_text().splitlines()
    lines = [str(len(rows) + 1), names, *rows, rows[0]]
    (faces / "list_attr_celeba.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"000001\.jpg named more than once in list_attr"):
        listed("celeba", faces)


def test_ingest_streams_a_published_layout_into_the_real_table(ray_local, tmp_path):
    folder = write_celeba(tmp_path / "celeba", each=2)
    overrides = ["dataset.name=celeba", f"dataset.path={folder}", "dataset.image_size=16"]
    facts = ingest(load_config(None, overrides).dataset, 0, str(tmp_path / "real"), Progress())
    assert facts["rows"] == 24 and facts["left_out"] == ""
    table = read_table(str(tmp_path / "real"))
    image = Image.open(io.BytesIO(table["image"][0].as_py()["bytes"]))
    assert image.size == (16, 16)
    said = io.StringIO()
    overrides = ["dataset.name=utkface", f"dataset.path={write_utkface(tmp_path / 'utk')}"]
    faces, narrator = str(tmp_path / "faces"), Progress(Console(file=said))
    facts = ingest(load_config(None, overrides).dataset, 0, faces, narrator)
    assert facts["rows"] == 80 and facts["left_out"].startswith("left out: 1 whose name")
    assert "left out: 1 whose name" in said.getvalue()


@pytest.mark.parametrize("name", ["waterbirds", "celeba", "utkface"])
def test_a_path_is_required(name):
    with pytest.raises(ConfigError, match=rf"`{name}` needs the folder"):
        load_config(None, [f"dataset.name={name}"])


# FFR (arXiv 2308.04553), counts of its split files: label-major, in the order of the groups.
FFR = {
    "utkface": {
        0.9: [103, 934, 5731, 636],
        0.95: [50, 934, 5731, 302],
        0.97: [29, 934, 5731, 178],
        0.99: [10, 934, 5731, 58],
        0.999: [1, 934, 5731, 6],
    },
    "celeba_hq": {
        0.9: [592, 5335, 7797, 866],
        0.95: [281, 5335, 7797, 411],
        0.97: [166, 5335, 7797, 242],
        0.99: [54, 5335, 7797, 79],
        0.999: [6, 5335, 7797, 8],
    },
}
# Before thinning: FFR's aligned groups, and conflicting ones at least as large as UTKFace's and
# CelebA-HQ's are; in UTKFace `old` is the larger group of both, in CelebA-HQ `female` is.
WHOLE = {"utkface": [5200, 934, 5731, 1100], "celeba_hq": [6500, 5335, 7797, 3700]}
NAMED = {
    "utkface": Groups(*(("male", "female"), ("old", "young")) * 2, ("young", "old")),
    "celeba_hq": Groups(*(("serious", "smiling"), ("female", "male")) * 2, ("male", "female")),
}


@pytest.mark.parametrize(
    ("name", "severity"), [(name, severity) for name, one in FFR.items() for severity in one]
)
def test_severity_gives_ffrs_published_counts(name, severity):
    group = np.repeat(np.arange(4), WHOLE[name])
    kept = subsample_to_severity(group, NAMED[name], severity, seed=0)
    assert np.bincount(group[kept]).tolist() == FFR[name][severity]


def table_of(sizes):
    """A listing of four groups of these sizes, and 10 more of each to validate and to test."""
    group = np.concatenate([np.repeat(np.arange(4), sizes), np.tile(np.arange(4), 20)])
    split = ["train"] * sum(sizes) + ["validation"] * 40 + ["test"] * 40
    return pa.table(
        {
            "id": [str(row) for row in range(len(group))],
            "label": pa.array(group // 2, pa.int32()),
            "attribute": pa.array(group % 2, pa.int32()),
            "split": split,
        }
    )


@pytest.mark.parametrize(
    ("name", "reader", "sizes", "severity", "expected"),
    [
        # blond men and women without blond hair conflict; ceil(n / 999) of the others remain
        ("celeba", CelebA, [71629, 66874, 22880, 1387], 0.999, [67, 66874, 22880, 23]),
        *(("utkface", UTKFace, WHOLE["utkface"], b, FFR["utkface"][b]) for b in FFR["utkface"]),
    ],
)
def test_published_pairs_are_thinned_to_a_correlation(
    monkeypatch, name, reader, sizes, severity, expected
):
    monkeypatch.setattr(reader, "listing", lambda self: table_of(sizes))
    groups, _, counts = listed(name, "/unread", f"dataset.severity={severity}")
    assert counts["train"].tolist() == expected
    aligned = [groups.name(g) for g in aligned_groups(counts["train"], groups)]
    assert (
        aligned
        == {
            "celeba": ["not_blond_hair/male", "blond_hair/female"],
            "utkface": ["male/young", "female/old"],
        }[name]
    )


def test_other_pairs_align_with_the_largest_group_unless_named(tmp_path):
    write_celeba(tmp_path)
    pair = ("dataset.label=Male", "dataset.attribute=Blond_Hair")
    assert listed("celeba", tmp_path, *pair)[0].aligned == ()
    groups, *_ = listed("celeba", tmp_path, *pair, "dataset.aligned={male: not_blond_hair}")
    assert groups.aligned == ("", "not_blond_hair")
    birds = write_waterbirds(tmp_path / "birds", each=30)
    swapped = "dataset.aligned={landbird: water}", "dataset.severity=0.9"
    groups, _, counts = listed("waterbirds", birds, *swapped)
    assert groups.aligned == ("water", "water") and counts["train"].tolist() == [3, 30, 3, 30]


@pytest.mark.parametrize(
    ("aligned", "says"),
    [
        ("{blond: male}", r"blond is no label of this data set; expected not_blond_hair, blond"),
        ("{blond_hair: men}", r"men is no attribute of this data set; expected female, male"),
    ],
)
def test_unknown_names_in_aligned_are_refused(tmp_path, aligned, says):
    with pytest.raises(ConfigError, match=rf"dataset\.aligned: {says}"):
        listed("celeba", write_celeba(tmp_path, each=1), f"dataset.aligned={aligned}")
    with pytest.raises(ConfigError, match=r"dataset\.aligned: outfits is composed"):
        load_config(None, [f"dataset.aligned={aligned}"])


def test_a_thinned_validation_split_keeps_ten_of_each_group():
    validation = np.repeat(np.arange(4), [90, 119, 724, 90])  # FFR's UTKFace
    kept = subsample_to_severity(validation, NAMED["utkface"], 0.999, seed=0, least=10)
    assert np.bincount(validation[kept]).tolist() == [10, 119, 724, 10]


def test_thinning_validation_is_a_choice(tmp_path):
    write_waterbirds(tmp_path, each=30)
    biased = "dataset.severity=0.9"
    counts = listed("waterbirds", tmp_path, biased)[2]
    assert counts["train"].tolist() == [30, 3, 3, 30] and counts["validation"].tolist() == [30] * 4
    counts = listed("waterbirds", tmp_path, biased, "dataset.thin_validation=true")[2]
    assert counts["validation"].tolist() == [30, 10, 10, 30]
    assert counts["test"].tolist() == [30] * 4


# Training images: as published; UTKFace's by FFR's rule, eight times its test split.
TRAINED = {"waterbirds": 4795, "celeba": 162770, "utkface": 8 * (723 + 103 + 710 + 121)}


@pytest.mark.parametrize("name", list(TRAINED))
def test_the_paper_scale_searches_reach_their_ratios_and_train_the_papers_beta(name):
    config = load_config(str(Path(__file__).parents[2] / "configs" / f"{name}.yaml"), [])
    kept = 4 * config.synthesis.images_per_group * config.selection.keep
    assert max(config.search.ratios) * TRAINED[name] <= kept
    assert search_space(config.classifier, config.search)["beta"] == config.classifier.beta == 0.5


@pytest.mark.parametrize("name", ["waterbirds", "celeba", "utkface"])
def test_the_paper_scale_configurations_are_valid(name):
    file = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    config = load_config(str(file), [])
    assert config.dataset.name == config.name == name
    marks = ("ours", "paper", "name: ", "path: ")
    lines = [line for line in file.read_text().splitlines() if line.startswith("  ")]
    assert [line for line in lines if not any(mark in line for mark in marks)] == []


@pytest.mark.parametrize("name", ["celeba", "utkface"])
def test_a_long_attribute_has_a_short_message(tmp_path, name):
    (tmp_path / "list_attr_celeba.txt").write_text("1\nMale Young\n1.jpg 1 1\n")
    with pytest.raises(ConfigError, match=r"dataset\.label") as error:
        listed(name, tmp_path, f"dataset.label={'x' * 5000}")
    assert len(str(error.value)) < 1500
