"""Ray's token: who has it runs code on every node, so it is there and its owner's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysynth.config.config import Config
from raysynth.doctor.check import (
    DRIVER,
    FAIL,
    HERE,
    OK,
    WARN,
    Check,
    Finding,
    Scene,
    on,
    places,
)


def look(config: Config, visit: str) -> dict[str, Any]:
    """Where Ray would take its token from, and who else may read it."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if os.environ.get("RAY_AUTH_TOKEN"):
        return {"mode": mode, "source": "RAY_AUTH_TOKEN", "fault": ""}
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
    return {"mode": mode, "source": path, "fault": _fault(path)}


def _fault(path: str) -> str:
    """What is wrong with a token's file; `missing`, `open`, `empty`, or nothing."""
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    if not found.st_size:
        return "empty"
    return "open" if stat.S_IMODE(found.st_mode) & 0o077 else ""


def judge(scene: Scene) -> Iterator[Finding]:
    """Which places are open, and which cannot enter."""
    seen = scene.of("token")
    found = [*_modes(scene, seen), *_files(scene, seen)]
    yield from found
    own = seen.get(HERE) or seen.get(DRIVER)
    if own is None or any(finding.mark == FAIL for finding in found):
        return
    if own["fault"]:  # a local Ray makes one
        yield Finding(OK, f"none yet at {own['source']}: a local run makes one, for you alone")
    else:
        whose = "" if own["source"] == "RAY_AUTH_TOKEN" else ", readable for its owner alone"
        yield Finding(OK, f"{own['source']}{whose}, {on(scene, len(seen))}")


def _modes(scene: Scene, seen: Mapping[str, Any]) -> Iterator[Finding]:
    if disabled := [place for place, facts in seen.items() if facts["mode"] == "disabled"]:
        yield Finding(
            FAIL,
            f"{places(disabled)}: RAY_AUTH_MODE=disabled, so that whoever reaches Ray's ports runs "
            "code",
            "export RAY_AUTH_MODE=token before `ray start`",
        )
    asked = seen.get(HERE) or seen.get(DRIVER)
    if not scene.local and asked is not None and not asked["mode"]:
        yield Finding(
            WARN,
            "RAY_AUTH_MODE is not set in this shell: `ray job submit` from it is refused with an "
            "AuthenticationError",
            "export RAY_AUTH_MODE=token",
        )


def _files(scene: Scene, seen: Mapping[str, Any]) -> Iterator[Finding]:
    for fault, said, fix in (
        (
            "missing",
            "no token at {}",
            "copy the head's there with mode 600, or make it once: `ray get-auth-token --generate`",
        ),
        (
            "empty",
            "the token's file {} is empty",
            "`ray get-auth-token --generate` on the head, and copy it",
        ),
        ("open", "others may read the token {}", "chmod 600 {}"),
    ):
        if fault == "missing" and scene.local:
            continue
        alike: dict[str, list[str]] = {}
        for place, facts in seen.items():
            if facts["fault"] == fault and facts["mode"] != "disabled":
                alike.setdefault(facts["source"], []).append(place)
        for source, names in alike.items():
            text = f"{places(names)}: {said.format(source)}"
            yield Finding(FAIL, text, fix.format(source))


PART = Check(30, judge, look)
