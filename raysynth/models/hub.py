"""Commits of hub models: a run resolves them once, and all of its workers load the same files.

A branch or "the newest" may move between two workers, or two days, under one digest.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from raysynth.errors import ModelError, first_line
from raysynth.models.settings import CLIP, LITE
from raysynth.models.sources import is_path

C = TypeVar("C", bound=BaseModel)
"""A configuration with the sections of MODELS."""
COMMIT = r"[0-9a-f]{40}"
SECONDS = 20.0
"""Of waiting for the hub."""
MODELS = (
    ("base", "name", "revision"),
    ("base", "clip", "clip_revision"),
    ("clustering", "encoder", "encoder_revision"),
    ("fidelity", "encoder", "encoder_revision"),
    ("classifier", "backbone", "revision"),
)
"""Section, the knob that names a model, and its revision's."""
OWN = ("embedded", "small", "auto", LITE)
"""Names that are none of the hub's."""


def named_models(config: BaseModel) -> dict[str, str]:
    """`section.knob` -> folder or hub id of the run's models that are not raysynth's own."""
    named = {f"{s}.{knob}": getattr(getattr(config, s), knob) for s, knob, _ in _of(config)}
    return {key: name for key, name in named.items() if name not in (*OWN, CLIP)}


def _of(config: BaseModel) -> list[tuple[str, str, str]]:
    """Those of MODELS whose section a configuration has."""
    return [each for each in MODELS if each[0] in type(config).model_fields]


def hub_models(config: BaseModel) -> list[tuple[str, str, str, str | None]]:
    """Section, knob of the revision, hub id and revision of the run's models of the hub."""
    named = named_models(config)
    return [
        (section, revision, name, getattr(getattr(config, section), revision))
        for section, knob, revision in _of(config)
        if (name := named.get(f"{section}.{knob}")) is not None and not is_path(name)
    ]


def pinned(config: C, strict: bool = True) -> C:
    """The configuration with every hub model's revision as a commit.

    `strict`: refuse what cannot be resolved; else it stays as it is (a plan asks nobody).

    Raises
    ------
    ModelError
        The hub has no such model or revision, or cannot be reached and the local cache has none.
    """
    update: dict[str, dict[str, Any]] = {}
    for section, knob, name, revision in hub_models(config):
        try:
            commit = commit_of(f"{section}.{knob}", name, revision)
        except ModelError:
            if strict:
                raise
            continue
        update.setdefault(section, {})[knob] = commit
    sections = {
        section: getattr(config, section).model_copy(update=knobs)
        for section, knobs in update.items()
    }
    return config.model_copy(update=sections) if sections else config


def commits(config: Any) -> dict[str, str]:
    """Hub id -> commit, of the models that are pinned to one."""
    return {
        name: revision
        for _, _, name, revision in hub_models(config)
        if revision and re.fullmatch(COMMIT, revision)
    }


def public_name(model: str) -> str:
    """A model's name on the hub; of a folder only the last part, and nothing that ends a code span.

    Where a model lay on the machine that trained is nobody's business.
    """
    folder = model.startswith(("/", "~", ".")) or model.count("/") > 1 or "\\" in model
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1] if folder else model
    return " ".join(name.replace("`", "'").split())


@cache
def commit_of(key: str, name: str, revision: str | None) -> str:
    """The commit that a revision of a hub model is now; the local cache's where the hub is not.

    Raises
    ------
    ModelError
        As `pinned`.
    """
    if revision and re.fullmatch(COMMIT, revision):
        return revision
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    reason = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            found = HfApi().model_info(name, revision=revision, timeout=SECONDS).sha
            if found:
                return found
            reason = "the hub names no commit"
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise _unknown(key, name, revision, first_line(error)) from None
        except Exception as error:  # any failure of the network: requests' and httpx's differ
            reason = f"the hub cannot be asked ({type(error).__name__})"
    kept = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    reference = kept / "refs" / (revision or "main")
    if reference.is_file():
        return reference.read_text().strip()
    raise _unknown(key, name, revision, f"{reason}, and {reference} is not in the local cache")


def _unknown(key: str, name: str, revision: str | None, reason: str) -> ModelError:
    return ModelError(
        f"{key}: the commit of {name} ({revision or 'the newest'}) is not known: {reason}. All "
        "workers must load the same files. Fix: check the name, the revision and the network, or "
        f"give the commit ({key}=<40 digits>) or a folder"
    )
