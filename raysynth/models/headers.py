"""What a model folder's files say without their weights: configurations, and safetensors' headers.

A header names every tensor of a file with its shape and place, so that a file that was cut off, or
lacks tensors, is known in microseconds. Nothing here imports torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from raysynth.errors import ModelError, first_line

WEIGHTS = r"(?:diffusion_pytorch_|)model(?:-\d+-of-\d+)?(?:\.(.+?))?(?:-\d+-of-\d+)?\.safetensors"
"""Files of weights; the group is their variant. Shards are numbered before it, or, as diffusers and
transformers used to, after it."""
DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"
"""What the two libraries call their files of weights."""
POINTER = b"version https://git-lfs"
LENGTH = 8
"""Bytes of a file that say how long its header is."""
LONGEST = 100_000_000
"""Bytes of a header, at most (safetensors' own limit)."""
AGAIN = "Fix: download the model again, whole"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    file: Path
    dtype: str
    """safetensors' name, such as F32."""
    shape: tuple[int, ...]


def read_config(key: str, path: Path) -> dict[str, Any]:
    """A JSON file of a model folder.

    Raises
    ------
    ModelError
        It is not there, no JSON in UTF-8, or no mapping.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        kept = "a Git LFS pointer" if _is_pointer(path) else reason_of(error)
        raise ModelError(
            f"{key}: {path} cannot be read as JSON ({kept}); expected the file that "
            f"save_pretrained writes. {AGAIN}"
        ) from None
    if not isinstance(found, dict):
        raise ModelError(
            f"{key}: {path} holds a JSON {type(found).__name__}; expected a mapping, as "
            f"save_pretrained writes it. {AGAIN}"
        )
    return found


def variant_of(folder: Path) -> str | None:
    """diffusers' and transformers' `variant` of a model folder's weights, such as fp16.

    None where there are weights without one, which are taken then.
    """
    found = {
        match[1]
        for path in folder.glob("*.safetensors")
        if (match := re.fullmatch(WEIGHTS, path.name)) is not None
    }
    return None if None in found else min(found, default=None)


def read_headers(key: str, folder: Path, stem: str) -> dict[str, Tensor]:
    """Name -> tensor of the weights that are loaded from a folder; only headers are read.

    Parameters
    ----------
    key : the configuration key that names the folder, for the message.
    stem : `DIFFUSERS` or `TRANSFORMERS`.

    Raises
    ------
    ModelError
        No weights, an index of files that are not there, or a file that is empty, cut off or a Git
        LFS pointer.
    """
    found: dict[str, Tensor] = {}
    for file in _files(key, folder, stem):
        found |= read_header(key, file)
    return found


def _files(key: str, folder: Path, stem: str) -> list[Path]:
    """The files that diffusers or transformers would open: one, or the shards of an index."""
    variant = variant_of(folder)
    dotted = f".{variant}" if variant else ""
    whole = folder / f"{stem}{dotted}.safetensors"
    indices = [folder / f"{stem}.safetensors.index{dotted}.json"]
    if variant and stem == DIFFUSERS:
        indices.append(folder / f"{stem}.safetensors{dotted}.index.json")  # older
    index = next((path for path in indices if path.is_file()), None)
    if whole.is_file() and (index is None or stem == TRANSFORMERS):
        return [whole]
    if index is None:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:12]) or "nothing"
        raise ModelError(
            f"{key}: no weights in {folder}; found {found}; expected {whole.name}, or shards with "
            f"{indices[0].name}. {AGAIN}"
        )
    named = read_config(key, index).get("weight_map")
    names = set(named.values()) if isinstance(named, dict) else set()
    wrong = [n for n in names if not isinstance(n, str) or Path(n).name != n or n in ("", "..")]
    if not names or wrong:
        raise ModelError(
            f"{key}: {index} names {str(wrong[0])[:80] if wrong else 'no file'} in weight_map; "
            f"expected names of files beside it. {AGAIN}"
        )
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise ModelError(
            f"{key}: {folder} lacks {', '.join(missing[:3])}, named by {index.name} "
            f"({len(missing)} of {len(names)} files). {AGAIN}"
        )
    return [folder / name for name in sorted(names)]


def read_header(key: str, path: Path) -> dict[str, Tensor]:
    """Name -> tensor of one file; raises ModelError for one that is not whole."""
    size = path.stat().st_size
    if _is_pointer(path):
        raise ModelError(
            f"{key}: {path} is a Git LFS pointer of {size} bytes, not the weights. Fix: git "
            "lfs pull, in the model's folder"
        )
    try:
        with path.open("rb") as file:
            shapes = tensors_of(file, size)
    except ValueError as error:
        raise _broken(key, path, str(error)) from None
    return {name: Tensor(path, dtype, shape) for name, (dtype, shape) in shapes.items()}


def tensors_of(file: BinaryIO, size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> type and shape of a safetensors file's tensors; no weight is read.

    Parameters
    ----------
    size : of the file, bytes.

    Raises
    ------
    ValueError
        The file is cut off, or none of safetensors'; says why.
    """
    length = int.from_bytes(file.read(LENGTH), "little")
    if size <= LENGTH or length > min(size - LENGTH, LONGEST):
        raise ValueError(f"its {size} bytes end before its header does")
    try:
        entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        found = {n: (e["dtype"], tuple(e["shape"])) for n, e in entries.items()}
        end = max((e["data_offsets"][1] for e in entries.values()), default=0)
        wrong = not all(isinstance(n, int) and n >= 0 for _, s in found.values() for n in s)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header cannot be read ({reason_of(error)})") from None
    if wrong or LENGTH + length + end != size:
        expected = f"{LENGTH + length + end} bytes" if not wrong else "tensors with shapes"
        raise ValueError(f"its header promises {expected}, the file has {size}")
    return found


def metadata_of(data: bytes) -> dict[str, str]:
    """What a whole safetensors file's bytes say besides their tensors; empty where nothing.

    Raises ValueError, AttributeError: the bytes are none of safetensors'.
    """
    found: dict[str, str] = header_of(data)[0].get("__metadata__") or {}
    return found


def header_of(data: bytes) -> tuple[Any, int]:
    """A whole safetensors file's header as JSON, and the place of the first byte after it.

    Raises ValueError: the bytes are none of safetensors'.
    """
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    return json.loads(data[LENGTH:end]), end


def is_whole(storage: Any, path: str) -> bool:
    """Whether a file of safetensors is there and as long as its header says; no weight is read.

    `storage`: what `open_storage` gives; `path`: as that names it.
    """
    try:
        with storage.open(path, "rb") as file:
            tensors_of(file, storage.size(path))
    except (FileNotFoundError, ValueError):
        return False
    return True


def _broken(key: str, path: Path, reason: str) -> ModelError:
    kind = "empty" if path.stat().st_size == 0 else "cut off or no safetensors file"
    return ModelError(
        f"{key}: {path} is {kind}: {reason}; expected whole safetensors weights. {AGAIN}"
    )


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False


def reason_of(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"
