"""`raysynth push`: what a run made as a repository of the Hugging Face Hub, with its card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from raysynth.config.config import Config
from raysynth.errors import ConfigError, StorageError, first_line
from raysynth.progress import Progress
from raysynth.publish import ADAPTERS, IMAGES
from raysynth.publish.adapters import export_adapters
from raysynth.publish.images import export_images
from raysynth.storage.files import sizes_below
from raysynth.terminal import clipped, shown

SHIPPED = "shipped"


def push(
    config: Config,
    repo: str,
    display: Progress,
    what: str = SHIPPED,
    dry_run: bool = False,
    public: bool = False,
) -> str:
    """Upload what a run made to a repository, which is made where there is none; says what and to.

    All of it is laid out in a temporary folder of this machine first.

    Parameters
    ----------
    config : the run's, or its name and storage only.
    repo : `owner/name`.
    what : `shipped`, another trained method, `adapters`, or `images` (the kept ones).
    dry_run : list what would be uploaded; nothing is asked of the network.
    public : whether everybody sees it; a repository that is there stays as it is.

    Raises ConfigError: no such name of a repository, or as the export of it; StorageError: the hub
    cannot be reached, or refuses.
    """
    _check(repo)
    kind = "dataset" if what == IMAGES else "model"
    with tempfile.TemporaryDirectory() as place:
        folder = os.path.join(place, what)
        _lay_out(config, what, folder, display)
        url = f"{constants.ENDPOINT}/{'datasets/' * (kind == 'dataset')}{repo}"
        sizes, seen = sizes_below(folder), "public" if public else "private"
        whole = f"{len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB"
        if dry_run:
            lines = [f"{size:>15,}  {name}" for name, size in sizes.items()]
            return "\n".join([*lines, f"{whole}; would be uploaded to {url} ({kind}, {seen})"])
        with _reaching(url):
            hub = HfApi()
            hub.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
            told = f"{what} of the run {config.name}"
            hub.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder, commit_message=told)
    return f"{whole}: {url}"


def _check(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(
            f"OWNER/NAME: got {clipped(shown(repo))!r} ({first_line(error)}). Fix: name the "
            "repository, such as anna/birds"
        ) from None


def _lay_out(config: Config, what: str, folder: str, display: Progress) -> None:
    """What is uploaded, as a local folder."""
    if what == IMAGES:
        export_images(config, folder, display)
    elif what == ADAPTERS:
        export_adapters(config, folder)
    else:
        from raysynth.export import export  # torch and transformers
        from raysynth.finished import read_finished

        export(config, read_finished(config).shipped["name"] if what == SHIPPED else what, folder)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """What the hub's client raises, as a StorageError with what helps."""
    try:
        yield
    except Exception as error:  # its own, and those of its network's package: requests or httpx
        raise StorageError(
            f"push: {url}: {first_line(error)}. Fix: `hf auth login` with a token that may write "
            "there, a network that reaches it, and no HF_HUB_OFFLINE"
        ) from None
