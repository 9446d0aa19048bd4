"""`raysynth init`: a first configuration of a folder, written as a file that can be run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raysynth.config.files import config_of
from raysynth.config.parse import parse_yaml
from raysynth.errors import ConfigError, DataError
from raysynth.planning.plan import plan_run
from raysynth.planning.proposal import Proposal, propose
from raysynth.planning.written import as_yaml, summary
from raysynth.terminal import clipped, shown


def begin(folder: str, to: Path | None = None, *, gpu: bool | None = None) -> Iterator[str]:
    """Write the configuration; what was found and what to do next, line by line.

    Parameters
    ----------
    to : a new file; None: the folder's name with `.yaml`, in the current folder.
    gpu : whether it is for one; None: as this machine has one.

    Raises
    ------
    ConfigError
        The file is there, or cannot be written.
    DataError
        The folder is no data set that can be read, one that a run would refuse, or one whose
        attributes are not known and whose words the embedded base does not know either.
    """
    proposal = propose(folder, gpu=gpu)
    file = to or Path(f"{proposal.settings['name']}.yaml")
    if file.exists():
        raise ConfigError(
            f"{clipped(shown(str(file)))} is there already, and may have been changed. Fix: "
            "--to another file, or remove it"
        )
    _check_attributes(folder, proposal)
    plan = plan_run(proposal.config)
    text = as_yaml(proposal, plan)
    config_of(parse_yaml(text), where=str(file))  # what is written is what was meant
    try:
        file.write_text(text)
    except OSError as error:
        raise ConfigError(
            f"{clipped(shown(str(file)))}: cannot be written ({error.strerror}). Fix: --to a file "
            "in a folder that this user may write"
        ) from None
    yield from summary(proposal, plan)
    yield from _next(shown(str(file)))


def _check_attributes(folder: str, proposal: Proposal) -> None:
    """Refuse images whose attributes nobody wrote, unless the embedded base may find them."""
    if proposal.recipe != "embedded" and proposal.config.dataset.attributes == "unknown":
        raise DataError(
            f"{shown(folder)}: nothing says what the labels wrongly go with (one attribute, or "
            "none); expected two or more. Fix: images in folders <label>/<attribute>/, or the "
            "column attribute in metadata.csv; or, in a file of your own, dataset.attributes: "
            "unknown and grouping.method: {name: conflict_mining, vocabulary: [land, water]}"
        )


def _next(name: str) -> tuple[str, ...]:
    """What to do with the file."""
    return (
        "",
        f"written: {name}. Read its prompts and words, then",
        f"  raysynth audit {name}   # what the images' bias does, without generating anything",
        f"  raysynth plan {name}    # what a run needs",
        f"  raysynth run {name}",
    )
