"""`raysynth.train` and `raysynth.generate`: the commands of these names from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysynth.endings import in_words

if TYPE_CHECKING:
    import pandas as pd

    from raysynth.adapter_runs.run import Adapters
    from raysynth.progress import Progress
    from raysynth.prompt_runs.run import Generated

PROMPTS = "prompts.parquet"
"""Where prompts lie that were no file, below the run's folder."""


def train(
    folder: str | os.PathLike[str], *settings: str, to: str = "", quiet: bool = False
) -> Adapters:
    """A LoRA adapter for each folder of images in a folder, or what is not there of them.

    Parameters
    ----------
    settings : as on the command line, such as `finetune.rank=16`.
    to : the run's folder or URI; "": `runs/<the folder's name>`.
    quiet : say nothing while it runs; the run's log has it.

    Raises
    ------
    RaysynthError
        What the command would end with: ConfigError, DataError, ModelError, StageError, ...
    """
    from raysynth.adapter_runs.settings import read_train

    with in_words():
        config = read_train(os.fspath(folder), settings, to=to)
    from raysynth.adapter_runs.run import run_train

    with in_words(config.root):
        return run_train(config, _progress(quiet))


def generate(
    prompts: Sequence[str] | pd.DataFrame | os.PathLike[str] | str,
    adapters: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | Adapters = (),
    *settings: str,
    to: str = "",
    export: str = "none",
    quiet: bool = False,
) -> Generated:
    """Images of prompts by any adapters, or what is not there of them.

    Parameters
    ----------
    prompts : a Parquet or CSV file; or a table of the same columns, or a list of prompts, which are
        kept in the run's folder.
    adapters : files and folders of LoRA, or what `train` gave; none: the base by itself.
    settings, quiet : as `train`.
    to : the run's folder or URI; "": `runs/<the file's name>`, `runs/prompts` of a table or list.
    export : also as `imagefolder` or `webdataset`.

    Raises
    ------
    RaysynthError
        As `train`.
    """
    from raysynth.prompt_runs.settings import read_generate

    given = _paths(adapters)
    with in_words():
        file = prompts if isinstance(prompts, str | os.PathLike) else PROMPTS
        config = read_generate(os.fspath(file), given, settings, to=to, export=export)
        if file is PROMPTS:
            path = _kept(prompts, config.root)
            config = config.model_copy(update={"prompts": path})
    from raysynth.prompt_runs.run import run_generate

    with in_words(config.root):
        return run_generate(config, _progress(quiet))


def _paths(adapters: Any) -> list[str]:
    if isinstance(adapters, str | os.PathLike):
        return [os.fspath(adapters)]
    folders = getattr(adapters, "folders", None)
    if isinstance(folders, Mapping):
        return list(folders.values())
    return [os.fspath(each) for each in adapters]


def _kept(prompts: Any, root: str) -> str:
    """The path of a file of prompts that were none."""
    import pandas as pd
    import pyarrow as pa

    from raysynth.storage.files import make_folder
    from raysynth.storage.tables import write_table

    table = prompts if isinstance(prompts, pd.DataFrame) else pd.DataFrame({"prompt": prompts})
    make_folder(root)
    write_table(pa.Table.from_pandas(table, preserve_index=False), f"{root}/{PROMPTS}")
    return f"{root}/{PROMPTS}"


def _progress(quiet: bool) -> Progress | None:
    if not quiet:
        return None
    from rich.console import Console

    from raysynth.progress import Progress

    return Progress(Console(quiet=True))
