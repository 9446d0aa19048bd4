"""Options of the commands that have a configuration of their own."""

from __future__ import annotations

from typing import Annotated

import typer

Files = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="FILE.yaml", help="Settings; again: later ones over earlier."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what it would take, and end.")
]
