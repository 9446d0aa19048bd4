"""Models and photographs: there for every node, found by the code that loads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raysynth.config.config import Config
from raysynth.doctor.check import OK, WARN, Check, Finding, Scene, on, places
from raysynth.errors import DataError
from raysynth.models.hub import hub_models, pinned
from raysynth.models.settings import BaseConfigSection
from raysynth.planning.preflight import check_stages
from raysynth.storage.files import exists


def look(config: Config, visit: str) -> dict[str, Any]:
    """Folders as a run checks them; of the hub's models commits, and the base's configuration."""
    path = config.dataset.path
    if path is not None and config.dataset.has_files and not exists(path):
        raise DataError(
            f"dataset.path: {path} is not there. Fix: a mount or a URI that every node sees"
        )
    config = pinned(config)
    check_stages(config)
    models = hub_models(config)
    if any(section == "base" and knob == "revision" for section, knob, _, _ in models):
        _read_base(config.base)
    return {"hub": [name for *_, name, commit in models if not _cached(name, commit)]}


def _read_base(base: BaseConfigSection) -> None:
    """The base's configuration files, from the hub or its cache; refused where it is no base."""
    import torch

    from raysynth.models.base import Files
    from raysynth.models.family import KEY
    from raysynth.models.loading import load_or_explain

    files = Files(base.name, {"revision": base.revision}, torch.float32, plain=True)
    load_or_explain(KEY, base.name, files.known)


def _cached(name: str, commit: str | None) -> bool:
    """Whether the hub's cache has weights of a model at this commit."""
    from huggingface_hub import constants

    kept = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots"
    return any((kept / str(commit)).rglob("*.safetensors"))


def judge(scene: Scene) -> Iterator[Finding]:
    """What every node would have to fetch."""
    seen, base = scene.of("models"), scene.config.base
    if not seen:
        return
    fetched = {place: facts["hub"] for place, facts in seen.items() if facts["hub"]}
    if fetched:
        names = sorted({name for each in fetched.values() for name in each})
        yield Finding(
            WARN,
            f"{places([*fetched])}: {', '.join(names)} would be downloaded from the hub, by each "
            "node that has none",
            "a shared mount or object storage for base.name and base.clip, or HF_HOME on a mount",
        )
    data = f"dataset.path {scene.config.dataset.path}, " if scene.config.dataset.path else ""
    yield Finding(OK, f"{data}base {base.name} and CLIP {base.clip} {on(scene, len(seen))}")


PART = Check(80, judge, look)
