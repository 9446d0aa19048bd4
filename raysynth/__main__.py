"""The command `raysynth`, and `python -m raysynth`."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command that the arguments name."""
    # Else pydantic looks through all installed packages for plugins, whenever a command starts.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from raysynth.cli import main as command

    command()


if __name__ == "__main__":
    main()
