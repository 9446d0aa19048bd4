"""webdataset: tar shards of `<name>.png`, `<name>.cls` (the label's index) and `<name>.json`.

Read one after the other, from any storage (Aizman et al. 2019, arXiv 2001.01858).
"""

from __future__ import annotations

import io
import json
import tarfile

from raysynth.publish.form import Files, Form, Piece, images_of, suffix_of


def _files(piece: Piece) -> Files:
    whole = io.BytesIO()
    labels = piece.rows["label"].to_pylist()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for label, (name, image, row) in zip(labels, images_of(piece), strict=True):
            _add(tar, f"{name}.{suffix_of(image)}", image)
            _add(tar, f"{name}.cls", str(label).encode())
            _add(tar, f"{name}.json", json.dumps(row).encode())
    return {f"{piece.split}-{piece.number:06d}.tar": whole.getvalue()}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member without a time: the same rows are the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


PART = Form(
    title="WebDataset",
    source="webdataset (arXiv 2001.01858), Hugging Face datasets",
    files=_files,
    load="""\
import glob

import webdataset

shards = sorted(glob.glob("{folder}/train-*.tar"))
images = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
pairs = images.to_tuple("png;jpg;webp", "cls", "json")
""",
)
