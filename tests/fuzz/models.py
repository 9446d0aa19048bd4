"""Model folders: their JSON and the headers of their weights, as far as a run looks before Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import EMBEDDED, check_base, check_clip, check_encoder
from tests.fuzz.harness import Target
from tests.fuzz.values import changed_bytes, json_file

ENCODER = "encoder/preprocessor_config.json"
TEXTS = {
    str(file.relative_to(EMBEDDED)): json.loads(file.read_text())
    for file in sorted(EMBEDDED.rglob("*config*.json"))
}
TEXTS |= {
    ENCODER: TEXTS["clip/processor_config.json"]["image_processor"],
    "encoder/config.json": TEXTS["clip/config.json"],
}
WEIGHTS = [str(file.relative_to(EMBEDDED)) for file in sorted(EMBEDDED.rglob("*.safetensors"))]
HEAD = 4096
"""Bytes at the start of a file of weights that are changed."""


@st.composite
def model_changes(draw: st.DrawFn) -> tuple[str, bytes | None, bool]:
    """A file, its bytes instead (None: there is none), whether of its start alone."""
    if draw(st.integers(0, 5)) == 0:
        name = draw(st.sampled_from(WEIGHTS))
        with (EMBEDDED / name).open("rb") as file:
            head = file.read(HEAD)
        return name, draw(changed_bytes(head)), draw(st.booleans())
    name = draw(st.sampled_from(sorted(TEXTS)))
    return name, draw(st.one_of(*[json_file(TEXTS[name])] * 12, st.none())), False


def _start(folder: Path) -> Path:
    shutil.copytree(EMBEDDED, folder / "base")
    shutil.copytree(EMBEDDED / "clip", folder / "base" / "encoder")
    (folder / "base" / ENCODER).write_text(json.dumps(TEXTS[ENCODER]))
    return folder / "base"


def _check(folder: Path, given: tuple[str, bytes | None, bool]) -> Path:
    name, data, starts = given
    file = folder / name
    whole = file.read_bytes()
    try:
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data + whole[HEAD:] if starts else data)
        _check_all(folder)
    finally:
        file.write_bytes(whole)
    return folder


def _check_all(folder: Path) -> None:
    base = BaseConfigSection(name=str(folder), clip=str(folder / "clip"))
    check_base(base)
    check_clip(base)
    check_encoder(str(folder / "encoder"))


def _again(folder: Path, made: Any) -> None:
    """The folder as it was is taken."""
    _check_all(folder)


TARGETS = [Target("model folders", model_changes(), _start, _check, _again, 0.3)]
