"""Data sets by name: one of another package, and what the others of the house ask of each."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from raysynth.config.files import load_config
from raysynth.config.storage import check_apart
from raysynth.datasets.contents import source_digest
from raysynth.datasets.ingest import _chunks, _write_chunk
from raysynth.datasets.layout import layout_of
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.datasets.outfits import SIZE
from raysynth.datasets.settings import LAYOUTS
from raysynth.errors import ConfigError
from raysynth.storage.tables import decode_images, groups_of, read_table

STRIPES = """
    from dataclasses import dataclass

    import numpy as np
    import pyarrow as pa

    from raysynth.datasets.layout import Layout
    from raysynth.storage.tables import SPLITS, encode_png

    @dataclass(frozen=True)
    class Stripes:
        seed: int
        label_names = label_words = ("across", "down")
        attribute_names = ("red", "blue")
        attribute_words = ("in red", "in blue")
        aligned = ("red", "blue")

        def listing(self):
            rows = [
                {"id": f"{split}-{y}{a}{n}", "label": y, "attribute": a, "split": split}
                for split in SPLITS for y in (0, 1) for a in (0, 1) for n in range(20)
            ]
            schema = pa.schema({"id": pa.string(), "label": pa.int32(), "attribute": pa.int32(),
                                "split": pa.string()})
            return pa.Table.from_pylist(rows, schema=schema)

        def images(self, rows):
            found = []
            for row in rows.to_pylist():
                pixels = np.zeros((8, 8, 3), np.uint8)
                pixels[::2, :, 2 * row["attribute"]] = 200
                found.append(encode_png(pixels.swapaxes(0, 1) if row["label"] else pixels))
            return found

    def check(config):
        if config.image_size:
            raise ValueError("dataset.image_size: stripes are drawn at 8 pixels. Fix: leave it out")

    PART = Layout(
        title="Stripes", source="a test", reads="nothing", check=check, severity=0.8,
        open=lambda config, seed: Stripes(seed), has_files=False, side=8,
    )
"""


def test_one_of_another_package_is_listed_thinned_and_written(tmp_path, add_part):
    add_part("raysynth.datasets.layouts", "stripes", STRIPES)
    config = load_config(None, ["dataset.name=stripes"])
    assert config.dataset.severity == 0.8 and config.dataset.stored_side == 8
    assert config.dataset.garments == () and source_digest(config.dataset, {}) == {}
    check_apart(config)
    data, groups, listing = list_dataset(config.dataset, config.seed)
    assert groups.attribute_words == ("in red", "in blue") and groups.aligned == ("red", "blue")
    assert split_counts(listing, groups)["train"].tolist() == [20, 4, 4, 20]
    for chunk in _chunks(listing):
        _write_chunk(chunk, data, groups, str(tmp_path / "real"))
    table = read_table(str(tmp_path / "real"))
    assert groups_of(table.schema) == groups and len(table) == len(listing)
    pixels, blue = decode_images(table["image"]), table["attribute"].to_numpy() == 1
    assert np.array_equal(pixels[..., 2].max(axis=(1, 2)) == 200, blue)
    with pytest.raises(ConfigError, match="stripes are drawn at 8 pixels"):
        load_config(None, ["dataset.name=stripes", "dataset.image_size=16"])
    with pytest.raises(ConfigError, match=r"dataset\.label: only celeba, hub, utkface choose it"):
        load_config(None, ["dataset.name=stripes", "dataset.label=Smiling"])


def test_an_unknown_name_is_told_the_known_ones():
    names = "celeba, folder, hub, outfits, tree, utkface, waterbirds"
    with pytest.raises(ConfigError, match=rf"dataset\.name.*{names}.*Did you mean 'celeba'"):
        load_config(None, ["dataset.name=celebs", "dataset.path=x"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_says_what_it_is(name):
    path = [] if name == "outfits" else ["dataset.path=/data"]
    dataset = load_config(None, [f"dataset.name={name}", *path]).dataset
    layout = layout_of(dataset)
    assert layout.title and layout.source and layout.reads
    assert dataset.has_files == (name != "outfits")
    assert dataset.severity == (0.99 if name == "outfits" else "original")
    assert dataset.stored_side == (SIZE if name == "outfits" else None)
    assert dataset.garments == (("pullover", "coat") if name == "outfits" else ())
    assert (layout.pair is not None) == (name in ("celeba", "hub", "utkface"))


def test_the_default_configuration_waits_for_no_reader():
    code = (
        "import sys; from raysynth.config.files import load_config; load_config(); "
        "print({'numpy', 'pandas', 'pyarrow', 'PIL', 'torch'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
