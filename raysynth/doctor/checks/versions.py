"""Python, raysynth and its packages: within what raysynth asks for, and the same everywhere."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import raysynth
from raysynth.config.config import Config
from raysynth.doctor.check import DRIVER, FAIL, HERE, OK, WARN, Check, Finding, Scene, on, places
from raysynth.stages.record import versions

SOURCE = Path(raysynth.__file__).parent
CONSTRAINTS = SOURCE.parent / "constraints.txt"
"""Beside the package in its repository; an installed one has none."""


def look(config: Config, visit: str) -> dict[str, Any]:
    """Versions of what decides the numbers, what is not as raysynth asks, and its source."""
    digest = hashlib.sha256()
    for file in sorted(SOURCE.rglob("*.py")):
        digest.update(file.relative_to(SOURCE).as_posix().encode() + file.read_bytes())
    found = {name: version.partition("+")[0] for name, version in versions().items()}
    return {"versions": found, "unfit": unfit(), "source": digest.hexdigest()[:12]}


def unfit() -> list[str]:
    """Sentences on packages that raysynth asks for and that are missing or of another version."""
    try:
        about = metadata.metadata("raysynth")
    except metadata.PackageNotFoundError:
        return []  # run from its source: nobody says what it asks for
    found = []
    asked, python = str(about["Requires-Python"] or ""), platform.python_version()
    if not SpecifierSet(asked).contains(python, prereleases=True):
        found.append(f"python {python}, raysynth asks for {asked}")
    for text in metadata.requires("raysynth") or ():
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            there = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            found.append(f"{need.name} is not installed, raysynth asks for {need.specifier}")
            continue
        if not need.specifier.contains(there, prereleases=True):
            found.append(f"{need.name} {there}, raysynth asks for {need.specifier}")
    return found


def judge(scene: Scene) -> Iterator[Finding]:
    """Compare the places with what raysynth asks for, and with the driver."""
    seen = scene.of("versions")
    faults = [*_unfit(seen), *_differing(seen)]
    yield from faults
    own = seen.get(HERE) or seen.get(DRIVER)
    if own is None:
        return
    pinned = pins(CONSTRAINTS) if CONSTRAINTS.is_file() else {}
    versions = own["versions"]
    moved = [
        f"{name} {version} (pinned: {pinned[name]})"
        for name, version in versions.items()
        if pinned.get(name, version) != version
    ]
    if moved:
        fix = f"pip install -c {CONSTRAINTS} raysynth, where the documents' numbers matter"
        yield Finding(WARN, f"not the versions of constraints.txt: {', '.join(moved)}", fix)
    if not faults:
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield Finding(OK, f"{told} {on(scene, len(seen))}")


def pins(file: Path) -> dict[str, str]:
    """Package -> version of a constraints file."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", file.read_text(), re.MULTILINE))


def _unfit(seen: Mapping[str, Any]) -> Iterator[Finding]:
    alike: dict[str, list[str]] = {}
    for place, facts in seen.items():
        for sentence in facts["unfit"]:
            alike.setdefault(sentence, []).append(place)
    for sentence, names in alike.items():
        yield Finding(
            FAIL, f"{places(names)}: {sentence}", "pip install -c constraints.txt raysynth there"
        )


def _differing(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What other nodes have otherwise than the driver: images would depend on who drew them."""
    if DRIVER not in seen:
        return
    own = {**seen[DRIVER]["versions"], "source": seen[DRIVER]["source"]}
    for name, version in own.items():
        alike: dict[str, list[str]] = {}
        for place, facts in seen.items():
            there = {**facts["versions"], "source": facts["source"]}.get(name, "none")
            if there != version:
                alike.setdefault(there, []).append(place)
        for there, names in alike.items():
            what = f"source of raysynth (digest {there})" if name == "source" else f"{name} {there}"
            fix = f"install {name} {version} on every node: an image by constraints.txt"
            if name == "source":
                fix = "install the same source on every node, or submit a job with --working-dir"
            yield Finding(FAIL, f"{places(names)}: {what}, the driver has {version}", fix)


PART = Check(10, judge, look)
