"""What a job is sent: the configuration, and the code where the cluster does not have it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import raysynth
from raysynth.errors import ConfigError

LIMIT_BYTES = 100 << 20
"""Largest upload that a job server takes."""
FILE_BYTES = 256
"""What a file's name takes besides its content."""
LEFT_OUT = ("__pycache__", ".DS_Store")
CONFIG = "config.yaml"
NAMED = 5

PACKAGE = Path(raysynth.__file__).parent


def is_checkout(package: Path = PACKAGE) -> bool:
    """Whether raysynth runs from a working copy of its repository, which no image has."""
    return (package.parent / "pyproject.toml").is_file()


@contextmanager
def packed(config: bytes | None, *, code: bool) -> Iterator[Path]:
    """A folder to be sent as a job's working directory, gone after the block.

    Parameters
    ----------
    config : content of its `config.yaml`; None: no such file.
    code : whether the package is sent too.

    Raises
    ------
    ConfigError
        It is larger than a job server takes; names what is large.
    """
    files = package_files() if code else []
    check_size([(str(file.relative_to(PACKAGE.parent)), file.stat().st_size) for file in files])
    with TemporaryDirectory(prefix="raysynth-job-") as name:
        folder = Path(name)
        for file in files:
            target = folder / file.relative_to(PACKAGE.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        if code:  # what asks for raysynth's version finds this copy's
            about = folder / f"raysynth-{version('raysynth')}.dist-info"
            about.mkdir()
            text = f"Metadata-Version: 2.1\nName: raysynth\nVersion: {version('raysynth')}\n"
            (about / "METADATA").write_text(text)
        if config is not None:
            (folder / CONFIG).write_bytes(config)
        yield folder


def package_files(package: Path = PACKAGE) -> list[Path]:
    """The package's files, without what Python makes of them."""
    return sorted(
        file
        for file in package.rglob("*")
        if file.is_file() and not set(LEFT_OUT) & set(file.parts) and file.suffix != ".pyc"
    )


def check_size(sizes: list[tuple[str, int]]) -> None:
    """Refuse files, by name and bytes, that are more than a job server takes."""
    total = sum(size + FILE_BYTES for _, size in sizes)
    if total <= LIMIT_BYTES:
        return
    largest = sorted(sizes, key=lambda each: -each[1])[:NAMED]
    named = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in largest)
    raise ConfigError(
        f"the upload has {total / 2**20:.1f} MiB, a job server takes {LIMIT_BYTES >> 20}; the "
        f"largest files are {named}. Fix: move them out of the package, or install raysynth on the "
        "cluster's image and submit with --installed"
    )
