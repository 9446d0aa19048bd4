"""The commands that look at a data set before anything is run: `init`, `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raysynth.endings import in_words


def init(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder or URI of images.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="New file; default: <folder's name>.yaml."),
    ] = None,
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--cpu", help="For a GPU or CPUs; default: what is here."),
    ] = None,
) -> None:
    """Look at a folder of images and write a first configuration, with comments; runs nothing."""
    from raysynth.planning.first import begin

    with in_words():
        for line in begin(folder, to, gpu=gpu):
            print(line)


def audit(
    source: Annotated[str, typer.Argument(metavar="FOLDER | CONFIG.yaml", help="Of images.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[section.key=value ...]", help="Of CONFIG.yaml."),
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="FILE.html", help="Also as a page: one file.")
    ] = "",
    clip: Annotated[
        str, typer.Option("--clip", help="CLIP whose features are judged; default: base.clip.")
    ] = "",
    images: Annotated[int, typer.Option("--images", help="Most of a split.", min=10)] = 1000,
) -> None:
    """What a data set's bias does to classifiers, and its images' shortcuts; generates nothing."""
    from raysynth.inspection.inspect import audit_data
    from raysynth.inspection.page import write

    with in_words():
        found = audit_data(source, *(settings or []), clip=clip, most=images)
        print(found, end="")
        if to:
            write(found, to)
            print(f"Page: {to}")
