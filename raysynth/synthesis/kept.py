"""Tensors that an attempt works out once, kept beside its images for all its actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import safetensors
import safetensors.torch
from torch import Tensor

from raysynth.errors import StageError
from raysynth.storage.files import open_storage, write_atomic


def keep_tensors(tensors: Mapping[str, Tensor], path: str) -> None:
    """Write tensors by name to a file or URI, whole."""
    dense = {name: value.contiguous() for name, value in tensors.items()}
    write_atomic(path, safetensors.torch.save(dense))


def read_tensors(path: str, what: str, names: Sequence[str] = ()) -> dict[str, Tensor]:
    """What `keep_tensors` wrote; `what` it is, in an error; `names`: those alone, empty: all.

    Raises
    ------
    StageError
        The file is not there, is none of tensors, or lacks some.
    """
    storage, name = open_storage(path)
    try:
        found = safetensors.torch.load(storage.cat_file(name))
        return {each: found[each] for each in names or found}
    except (FileNotFoundError, KeyError, safetensors.SafetensorError) as error:
        raise StageError(
            f"synthesis: {path} cannot be read ({type(error).__name__}); expected {what}. Fix: run "
            "again with the stage's `.partial` folder removed"
        ) from error
