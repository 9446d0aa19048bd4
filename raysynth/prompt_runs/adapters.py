"""Which adapters a run draws with: files and folders by name, what they adapt, what they share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from raysynth.adapters.record import LoraShape
from raysynth.errors import ConfigError, ModelError
from raysynth.prompt_runs.lora_file import Layer, LoraFile, read_lora_file
from raysynth.storage.files import Storage, open_storage
from raysynth.terminal import clipped, masked, shown

WEIGHTS = "pytorch_lora_weights.safetensors"
"""diffusers' name of an adapter's file in a folder of its own."""
ADAPTERS, LIST = "adapters", "adapters.json"
"""Where a run has its adapters, and what is there when all are."""
READERS = 16


@dataclass(frozen=True)
class Adapters:
    """The adapters of a run."""

    files: Mapping[str, LoraFile]
    """By name, in the order in which they were given."""
    given: Mapping[str, tuple[str, ...]]
    """Path as it was given -> names."""

    @property
    def layers(self) -> dict[str, Layer]:
        """Every layer that one of them adapts, as the first that does says it."""
        found: dict[str, Layer] = {}
        for file in self.files.values():
            for name, layer in file.layers.items():
                found.setdefault(name, layer)
        return dict(sorted(found.items()))

    @property
    def shape(self) -> LoraShape:
        """What they look like side by side: each has layers, ranks and a form of its own."""
        text = any(file.text for file in self.files.values())
        rank = max((file.rank for file in self.files.values()), default=1)
        return LoraShape((), rank, float(rank), text, each=True)


def find_adapters(given: Sequence[str], *, numbers: bool = True) -> Adapters:
    """The adapters of files, of folders of diffusers' form, and of folders of either.

    `numbers`: as `read_lora_file`; the check of a run looks at them, its stages need not.

    Raises
    ------
    ConfigError
        A path with no adapter; two adapters of one name.
    ModelError
        A file that cannot be used, see `read_lora_file`.
    """
    paths: dict[str, str] = {}
    of: dict[str, tuple[str, ...]] = {}
    for each in given:
        names = []
        for name, path in _below(each):
            if paths.get(name, path) != path:
                raise ConfigError(
                    f"two adapters are called {clipped(shown(name))!r}: {masked(paths[name])} and "
                    f"{masked(path)}; expected a name for each, its folder's or file's. Fix: "
                    "rename one, or leave it out"
                )
            paths[name] = path
            names.append(name)
        of[each] = tuple(names)
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(partial(read_lora_file, numbers=numbers), paths.values())
        files = dict(zip(paths, read, strict=True))
    _require_fitting(files)
    return Adapters(files, of)


def _below(path: str) -> Iterator[tuple[str, str]]:
    """(name, file) of the adapters at a path."""
    whole = path.rstrip("/")
    storage, root = open_storage(whole)
    if storage.isfile(root):
        yield _name_of(whole), whole
        return
    files = _files_in(storage, root)
    if WEIGHTS in files:
        yield _name_of(f"{whole}/{WEIGHTS}"), f"{whole}/{WEIGHTS}"
        return
    if f"{ADAPTERS}/{LIST}" in files:  # a run
        yield from _below(f"{whole}/{ADAPTERS}")
        return
    inner = [name for name in files if re.fullmatch(rf"[^/]+/{re.escape(WEIGHTS)}", name)]
    alone = [name for name in files if "/" not in name and name.endswith(".safetensors")]
    if not inner + alone:
        raise ConfigError(
            f"ADAPTER: {masked(path)}: no adapter; expected a .safetensors file, a folder with "
            f"{WEIGHTS}, a folder of these, or a run. Fix: check the path"
        )
    for name in sorted(inner + alone):
        yield _name_of(f"{whole}/{name}"), f"{whole}/{name}"


def _files_in(storage: Storage, root: str) -> list[str]:
    """Files right in a folder, and those one folder below."""
    if not storage.isdir(root):
        return []
    found = storage.find(root, maxdepth=2)
    return [str(name).removeprefix(root).lstrip("/") for name in found]


def _name_of(file: str) -> str:
    """An adapter's name by its file: the folder's where the file's is everybody's."""
    folder, _, name = file.rpartition("/")
    own = folder.rpartition("/")[2] if name == WEIGHTS else os.path.splitext(name)[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip("-._") or "adapter"


def _require_fitting(files: Mapping[str, LoraFile]) -> None:
    """Refuse files that cannot be of one base: layers of one name and other sizes."""
    known: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, file in files.items():
        for layer, found in file.layers.items():
            size = (*found.a[1:], found.b[0])
            first, expected = known.setdefault(layer, (name, size))
            if size != expected:
                raise ModelError(
                    f"adapters {first} and {name} are of different bases: {layer} has "
                    f"{list(expected)} inputs and outputs in one and {list(size)} in the other. "
                    "Fix: adapters of one base alone"
                )
