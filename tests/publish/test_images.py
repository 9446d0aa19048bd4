"""Images of a run in other tools: each form is loaded, as its card says, without raysynth."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysynth.errors import ConfigError
from raysynth.progress import Progress
from raysynth.publish import images as room
from raysynth.publish.images import export_images
from raysynth.storage.tables import decode_bytes
from tests.publish.made import MadeRun, make_run, stranger

COUNT, KEPT, REAL = 40, 32, 56 + 24 + 32


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("runs"))


def export(made: MadeRun, to: Path | str, *given: str) -> str:
    return export_images(made.config, str(to), Progress(), *given)


def load_lines(card: Path, folder: Path) -> str:
    """What a card tells to load its folder."""
    code = re.search(r"## Load\n```python\n(.*?)```", card.read_text(), re.DOTALL)
    return code[1].replace("path/to/this/folder", str(folder))


def pixels_of(made: MadeRun) -> dict[str, np.ndarray]:
    images = decode_bytes(made.synthetic["image"].combine_chunks().field("bytes"))
    return dict(zip(made.synthetic["id"].to_pylist(), images, strict=True))


def hashed(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


LOOK = """
import hashlib, json, numpy as np
told = {}
for split, rows in images.items():
    told[split] = {
        "features": {name: getattr(rows.features[name], "names", None) for name in rows.features},
        "rows": [
            {k: v for k, v in row.items() if k != "image"}
            | {"pixels": hashlib.sha256(np.asarray(row["image"]).tobytes()).hexdigest()}
            for row in rows
        ],
    }
print(json.dumps(told))
"""


def test_the_runs_own_synthetic_table_loads_as_it_lies(made, tmp_path):
    folder = made.run.folder("synthesis")
    lines = stranger(
        f'from datasets import load_dataset\nimages = load_dataset("parquet", data_dir={folder!r})'
        + LOOK,
        HF_DATASETS_CACHE=str(tmp_path),
    )
    told = json.loads(lines[-1])["train"]
    assert told["features"]["group"] == made.groups.names
    assert told["features"]["label"] == ["a", "b/ä c"] and told["features"]["attribute"] == [
        "1",
        "2",
    ]
    assert len(told["rows"]) == COUNT


def test_kept_images_load_as_their_card_says(made, tmp_path):
    said = export(made, tmp_path / "kept")
    assert said == f"{KEPT} images (the images that were kept) as Parquet: {tmp_path / 'kept'}"
    lines = load_lines(tmp_path / "kept/README.md", tmp_path / "kept")
    told = json.loads(stranger(lines + LOOK, HF_DATASETS_CACHE=str(tmp_path / "cache"))[-1])
    (rows,), own = [each["rows"] for each in told.values()], pixels_of(made)
    assert list(told) == ["train"] and told["train"]["features"]["group"] == made.groups.names
    assert [row["id"] for row in rows] == made.kept
    assert all(row["pixels"] == hashed(own[row["id"]]) for row in rows)
    digest = hashlib.sha256(b"no weights, and a hash all the same").hexdigest()
    assert {row["adapter_sha256"] for row in rows} == {digest}
    assert rows[1]["prompt"] == "a photo, number 1" and rows[1]["seed"] == 2**62 + 1
    assert rows[0]["score"] == 1.0 and rows[0]["kept"] and rows[0]["synthetic"]
    assert not (tmp_path / "kept/.export").exists()


def test_two_exports_of_one_folders_name_are_loaded_as_two(made, tmp_path):
    for which in ("kept", "all"):
        export(made, tmp_path / which / "images", which)
        lines = load_lines(tmp_path / which / "images/README.md", tmp_path / which / "images")
        told = json.loads(stranger(lines + LOOK, HF_DATASETS_CACHE=str(tmp_path / "cache"))[-1])
        assert len(told["train"]["rows"]) == (KEPT if which == "kept" else COUNT)


def test_image_folders_of_all_that_there_is_load(made, tmp_path):
    export(made, tmp_path / "x", "both", "imagefolder")
    lines = load_lines(tmp_path / "x/README.md", tmp_path / "x")
    told = json.loads(stranger(lines + LOOK, HF_DATASETS_CACHE=str(tmp_path / "cache"))[-1])
    assert {split: len(each["rows"]) for split, each in told.items()} == {
        "train": 56 + KEPT,
        "validation": 24,
        "test": 32,
    }
    own = pixels_of(made)
    drawn = [row for row in told["train"]["rows"] if row["synthetic"]]
    assert len(drawn) == KEPT
    assert all(row["pixels"] == hashed(own[row["id"]]) for row in drawn)
    assert {row["label"] for row in drawn} == {"a", "b/ä c"}
    folders = {path.name for path in (tmp_path / "x/train").iterdir() if path.is_dir()}
    assert "a" in folders and len(folders) == 2, "as torchvision and Keras read labels"


def test_tar_shards_are_read_by_webdataset(made, tmp_path):
    export(made, tmp_path / "w", "all", "webdataset")
    lines = load_lines(tmp_path / "w/README.md", tmp_path / "w")
    look = """
import json, numpy as np, hashlib
found = []
for image, label, row in pairs:
    pixels = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
    found.append((pixels, label, row["id"], row["group"]))
print(json.dumps(found))
"""
    found, own = json.loads(stranger(lines + look)[-1]), pixels_of(made)
    assert len(found) == COUNT and {label for _, label, *_ in found} == {0, 1}
    assert all(sha256 == hashed(own[name]) for sha256, _, name, _ in found)
    assert {group for *_, group in found} == set(made.groups.names)


def test_real_images_leave_without_what_their_files_told(tmp_path):
    made = make_run(tmp_path / "runs")
    path = Path(made.run.folder("ingest"), "test-00000.parquet")
    table, file = pq.read_table(path), io.BytesIO()
    exif = Image.Exif()
    exif[0x013B], exif[0x8825] = "Anna Artist", {1: "N", 2: (52.0, 1.0, 2.0)}
    Image.new("RGB", (12, 12), "red").save(file, "JPEG", exif=exif)
    assert b"Anna" in file.getvalue()
    images = table["image"].to_pylist()
    images[0]["bytes"] = file.getvalue()
    column = table.schema.field("image").type
    pq.write_table(table.set_column(1, table.schema.field("image"), pa.array(images, column)), path)
    export(made, tmp_path / "r", "real")
    (out,) = (tmp_path / "r/data").glob("test-*.parquet")
    data = pq.read_table(out)["image"].to_pylist()[0]["bytes"]
    assert b"Anna" not in data and not Image.open(io.BytesIO(data)).getexif()
    assert "no generated image" in (tmp_path / "r/README.md").read_text()


def test_every_generated_image_says_so(made, tmp_path):
    export(made, tmp_path / "x", "kept", "imagefolder")
    files = sorted((tmp_path / "x").rglob("*.png"))
    assert len(files) == KEPT
    space = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    for file in files:
        packet = ElementTree.fromstring(Image.open(file).info["xmp"].strip(b"\0"))
        (said,) = packet.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
        kind = said.get(f"{space}DigitalSourceType").rpartition("/")[2]
        number = int(said.get("{urn:raysynth:marks:1}seed")) - 2**62
        edited = number % 5 == 0
        assert (
            kind == ("compositeWith" * edited) + ("T" if edited else "t") + "rainedAlgorithmicMedia"
        )
        assert said.get("{urn:raysynth:marks:1}adapterSHA256")
        assert said.get(f"{space}AISystemUsed") == "embedded"
    if shutil.which("exiftool"):
        command = ["exiftool", "-j", "-XMP-iptcExt:all", str(files[0])]
        told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert told[0]["DigitalSourceType"].endswith("lgorithmicMedia")


def test_an_export_that_was_cut_off_goes_on(made, tmp_path, monkeypatch):
    export(made, tmp_path / "whole", "both", "imagefolder")
    put, written = room.Target.put, []

    def some(self, piece, name, writers):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(name)
        return put(self, piece, name, writers)

    monkeypatch.setattr(room.Target, "put", some)
    with pytest.raises(KeyboardInterrupt):
        export(made, tmp_path / "half", "both", "imagefolder")
    assert not (tmp_path / "half/README.md").exists()
    with pytest.raises(ConfigError, match="is not empty, and not what the same export left"):
        export(made, tmp_path / "half", "kept", "imagefolder")
    monkeypatch.setattr(
        room.Target,
        "put",
        lambda self, piece, name, writers: written.append(name) or put(self, piece, name, writers),
    )
    export(made, tmp_path / "half", "both", "imagefolder")
    assert len(written) == len(set(written)) > 4, "nothing was written twice"
    assert files_of(tmp_path / "half") == files_of(tmp_path / "whole")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_into_a_bucket_and_out_of_one(made, s3, tmp_path):
    fsspec.filesystem("s3").put(made.run.root, f"{s3}/tiny", recursive=True)
    away = made.config.model_copy(update={"storage_path": s3})
    export_images(away, f"{s3}/out", Progress(), "kept", "webdataset")
    export(made, tmp_path / "here", "kept", "webdataset")
    fsspec.filesystem("s3").get(f"{s3}/out/", str(tmp_path / "there"), recursive=True)
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")


def test_what_cannot_be_exported_is_refused(made, tmp_path):
    for given, words in {
        ("kept", "imagefolders"): "Did you mean 'imagefolder'",
        ("keep", "parquet"): "expected one of kept, all, real, both",
    }.items():
        with pytest.raises(ConfigError, match=words):
            export(made, tmp_path / "no", *given)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export(made, tmp_path / "full")
    assert not os.path.exists(tmp_path / "no")
