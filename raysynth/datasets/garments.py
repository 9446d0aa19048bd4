"""Fashion-MNIST garments, cut out of their black background, and who may use which.

The 70,000 garments (train and test files joined, index 0..69999) are dealt once, by a fixed seed:
10,000 to the data set *outfits* and 60,000 to the pretraining of the tiny base. Exact duplicates
never cross that line. Run as a script, this module rebuilds the shipped files byte for byte:

    python -m raysynth.datasets.garments --idx /usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

DATA = Path(__file__).parent / "data"
CUTOUTS_FILE = "outfits.parquet"
CHECKSUMS_FILE = "SHA256SUMS"
PHOTOGRAPHS = ("grass", "gravel", "brick")

CLASSES = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""Fashion-MNIST's ten classes in the order of its labels, as spoken in prompts."""

RESERVED = {name: 3200 if name in ("pullover", "coat") else 450 for name in CLASSES}
"""Garments of each class that belong to outfits; all others belong to the tiny base."""

_DEAL_SEED = 20170825
_MASK_THRESHOLD = 10
_EDGE_SIGMA = 0.6
_KEEP_COMPONENT = 0.15

_IDX_FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


@dataclass(frozen=True)
class FashionMnist:
    """All garments: `images` uint8 [70000, 28, 28], `labels` uint8 [70000]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzipped or not (format: LeCun, MNIST page)."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"{path}: not an IDX file of unsigned bytes (starts with {raw[:4].hex()}, expected "
            "000008..). Point dataset.path to a folder with Fashion-MNIST's four IDX files."
        )
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape.tolist())


@lru_cache(maxsize=2)
def load_fashion_mnist(folder: str) -> FashionMnist:
    """Load the four IDX files (.gz or not) of `folder`, train files first.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message names it and where to get it.
    """
    images, labels = [], []
    for image_name, label_name in _IDX_FILES:
        images.append(read_idx(_find(Path(folder), image_name)))
        labels.append(read_idx(_find(Path(folder), label_name)))
    return FashionMnist(np.concatenate(images), np.concatenate(labels))


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{folder}: no file {name} or {name}.gz, expected Fashion-MNIST's four IDX files there. "
        "Install Debian's dataset-fashion-mnist (/usr/share/datasets/fashion-mnist) or download "
        "them from github.com/zalandoresearch/fashion-mnist."
    )


def pixel_digests(images: NDArray[np.uint8]) -> list[bytes]:
    """sha256 of each garment's 784 pixels, 32 bytes each."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def reserved_indices(labels: NDArray[np.uint8], digests: Sequence[bytes]) -> NDArray[np.int64]:
    """The indices that belong to outfits, ascending; the rest belongs to the tiny base.

    Only garments whose pixels occur once are eligible, so that no garment of the base can be a
    copy of one of outfits.
    """
    counts: dict[bytes, int] = {}
    for digest in digests:
        counts[digest] = counts.get(digest, 0) + 1
    unique = np.array([counts[digest] == 1 for digest in digests])
    rng = np.random.default_rng(_DEAL_SEED)
    chosen = [
        rng.permutation(np.flatnonzero(unique & (labels == label)))[: RESERVED[name]]
        for label, name in enumerate(CLASSES)
    ]
    return np.sort(np.concatenate(chosen))


def base_indices(labels: NDArray[np.uint8], digests: Sequence[bytes]) -> NDArray[np.int64]:
    """The 60,000 indices that belong to the tiny base, ascending."""
    return np.setdiff1d(np.arange(len(labels)), reserved_indices(labels, digests))


def cut_out(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut a garment [28, 28] from its black background: gray and alpha, uint8 [28, 28, 2].

    The mask is binary with its holes filled, keeps the largest components, and falls off softly
    within its outermost pixels. The gray under the edge is taken from the nearest inner pixel, so
    that no dark rim of the old background remains.
    """
    from scipy import ndimage  # a second, for who makes the shipped files

    mask = _silhouette(image)
    alpha = np.where(mask, ndimage.gaussian_filter(mask.astype(np.float32), _EDGE_SIGMA), 0.0)
    inner = ndimage.binary_erosion(mask)
    gray = image
    if inner.any():
        nearest = ndimage.distance_transform_edt(
            ~inner, return_distances=False, return_indices=True
        )
        gray = np.where(mask, np.maximum(image, image[tuple(nearest)] // 2), 0)
    # Sixteen steps of alpha look the same and halve its size in the PNG.
    alpha_u8 = np.round(alpha * 15).astype(np.uint8) * 17
    return np.stack([gray.astype(np.uint8), alpha_u8], axis=-1)


def _silhouette(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Largest components of the bright pixels, holes filled; bool [28, 28]."""
    from scipy import ndimage

    filled = ndimage.binary_fill_holes(image > _MASK_THRESHOLD)
    components, count = ndimage.label(filled, structure=np.ones((3, 3)))
    if count < 2:
        return np.asarray(filled, bool)
    sizes = np.bincount(components.ravel())[1:]
    large = 1 + np.flatnonzero(sizes >= _KEEP_COMPONENT * sizes.max())
    return np.asarray(np.isin(components, large), bool)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG bytes of an image [H, W], [H, W, 2] (gray and alpha) or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def shipped_file(name: str) -> Path:
    """Path of a shipped data file whose sha256 has been compared with SHA256SUMS."""
    return _verified(DATA, name)


@lru_cache(maxsize=16)
def _verified(folder: Path, name: str) -> Path:
    path, sums = folder / name, folder / CHECKSUMS_FILE
    expected = dict(line.split()[::-1] for line in sums.read_text().splitlines())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected.get(name):
        raise ValueError(
            f"{path}: sha256 is {found}, {CHECKSUMS_FILE} expects {expected.get(name)}. The file "
            "is damaged or was edited; reinstall raysynth, or rebuild it with "
            "`python -m raysynth.datasets.garments --idx FOLDER`."
        )
    return path


@lru_cache(maxsize=1)
def load_cutouts() -> pa.Table:
    """The shipped garments: `garment` (IDX index), `class`, `sha256`, `png` (gray and alpha)."""
    return pq.read_table(shipped_file(CUTOUTS_FILE), partitioning=None)


def build_cutouts(idx_folder: str, out: Path) -> None:
    """Write outfits.parquet from the IDX files."""
    mnist = load_fashion_mnist(idx_folder)
    digests = pixel_digests(mnist.images)
    indices = reserved_indices(mnist.labels, digests)
    table = pa.table(
        {
            "garment": pa.array(indices, pa.int32()),
            "class": pa.array([CLASSES[mnist.labels[i]] for i in indices], pa.string()),
            "sha256": pa.array([digests[i] for i in indices], pa.binary(32)),
            "png": pa.array([encode_png(cut_out(mnist.images[i])) for i in indices], pa.binary()),
        }
    )
    pq.write_table(table, out, compression="zstd", use_dictionary=["class"], write_statistics=False)


def build_photographs(out: Path) -> None:
    """Copy scikit-image's CC0 photographs as 512x512 gray PNGs (needs scikit-image, once)."""
    import skimage

    for name in PHOTOGRAPHS:
        source = Path(skimage.__file__).parent / "data" / f"{name}.png"
        gray = np.asarray(Image.open(source).convert("L"))
        (out / f"{name}.png").write_bytes(encode_png(gray))


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over the data files of `folder`, readable by `sha256sum --check`."""
    names = sorted([CUTOUTS_FILE, *(f"{name}.png" for name in PHOTOGRAPHS)])
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / CHECKSUMS_FILE).write_text("".join(lines))


def main() -> None:
    """Build the shipped data files of outfits."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--idx", required=True, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--out", type=Path, default=DATA, help="where the files go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    build_cutouts(arguments.idx, arguments.out / CUTOUTS_FILE)
    build_photographs(arguments.out)
    write_checksums(arguments.out)


if __name__ == "__main__":
    main()
