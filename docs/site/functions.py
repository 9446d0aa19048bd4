"""The page of functions (docs/api.md) begins with what the package itself exports."""

from __future__ import annotations

from sphinx.application import Sphinx

import raysynth

PAGE = "docs/api"
LIST = "\n## The package\n\n```{{eval-rst}}\n{names}\n```\n"


def add_exports(app: Sphinx, page: str, source: list[str]) -> None:
    """Append `raysynth.__all__`, once the package has one."""
    names = getattr(raysynth, "__all__", ())
    if page == PAGE and names:
        kinds = {name: "class" if name[0].isupper() else "function" for name in names}
        lines = [f".. auto{kind}:: raysynth.{name}" for name, kind in kinds.items()]
        source[0] += LIST.format(names="\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", add_exports)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
