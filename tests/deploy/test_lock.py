"""requirements.lock: the versions of constraints.txt, with a hash each; the image installs it."""

from __future__ import annotations

import re

from tests.deploy.pins import ROOT, pins


def test_lock_and_constraints_name_the_same_versions():
    """torch's build is its index's choice; tzdata is pandas' on Windows."""
    pinned, locked = pins(), pins("requirements.lock")
    assert locked.items() <= pinned.items()
    assert pinned.keys() - locked.keys() <= {"torch", "tzdata"}


def test_the_lock_has_a_hash_for_every_version_and_nothing_of_a_machine():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert re.fullmatch(r"\S+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
        assert line.endswith("\\") == following.startswith("    --hash")


DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def image_faults(text: str) -> list[str]:
    """What an image should not be: of a moving base, root's, or with more than the lock names."""
    instructions = re.sub(
        r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    ).splitlines()
    found = [
        f"{line.split()[1]}: a base that moves"
        for line in instructions
        if line.startswith("FROM") and not re.search(r"@(\$\{DIGEST\}|sha256:[0-9a-f]{64})", line)
    ]
    if not re.search(r"^ARG DIGEST$", text, re.MULTILINE):
        found.append("DIGEST has a default: an invented one, or an old one")
    users = [line.split()[1] for line in instructions if line.startswith("USER")]
    if not users or not re.fullmatch(r"[1-9]\d*(:\d+)?", users[-1]):
        found.append("runs as root, or as a name that runAsNonRoot cannot tell from root")
    if "--require-hashes" not in text or "requirements.lock" not in text:
        found.append("does not install by the lock")
    secret = r"(?i)\b(?:ARG|ENV)\s+\w*(?:token|secret|password|_key)\w*"
    return found + [f"a secret in a layer: {each}" for each in re.findall(secret, text)]


def test_the_image_is_of_the_lock_and_nobodys_root():
    assert image_faults(DOCKERFILE) == []
    assert "python:3.11-" in DOCKERFILE and f":ray-{pins()['ray']}" in DOCKERFILE


def test_what_is_wrong_with_an_image_is_said():
    for old, new, said in (
        ("FROM ${BASE}@${DIGEST}", "FROM python:latest", "a base that moves"),
        ("ARG DIGEST", "ARG DIGEST=sha256:00", "has a default"),
        ("USER 1000:1000", "USER root", "runs as root"),
        ("--require-hashes", "", "by the lock"),
        ("ENV NVIDIA", "ENV HF_TOKEN=abc\nENV NVIDIA", "a secret in a layer"),
    ):
        assert old in DOCKERFILE
        assert any(said in fault for fault in image_faults(DOCKERFILE.replace(old, new))), said


def test_the_build_sees_what_it_copies_and_nothing_else():
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    copied = {
        name
        for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    }
    assert ignored[0] == "*" and {line[1:] for line in ignored if line[0] == "!"} == copied
    assert all((ROOT / name).exists() for name in copied)
