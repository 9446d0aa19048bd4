"""The site's navigation, read off docs/index.md: a heading is a caption, a bulleted link a page.

Pages in a folder beside a page of the same name (`results.md`, `results/`), or beside an
`index.md`, are below it without being listed.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import PurePosixPath

from sphinx.application import Sphinx

ROOT = "docs/index"
ENTRY = re.compile(r"^- \[([^\]]+)\]\(([^)#:]+)\.md\)", re.MULTILINE)
TREE = "\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def captions(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """(Heading, [(title, page relative to docs/)]) of the index's second-level headings."""
    parts = re.split(r"^## +(.+)$", text, flags=re.MULTILINE)[1:]
    return [
        (head, [(" ".join(title.split()), page) for title, page in ENTRY.findall(body)])
        for head, body in zip(parts[::2], parts[1::2], strict=True)
    ]


def below(page: str, pages: set[str]) -> list[str]:
    """The pages below a page: those of its folder, newest dated notes first."""
    path = PurePosixPath(page)
    folder = str(path.parent if path.name == "index" else path)
    if page == ROOT:
        return []
    found = sorted(each for each in pages if posixpath.dirname(each) == folder and each != page)
    return found[::-1] if path.parent.name == "notebook" else found


def add_trees(app: Sphinx, page: str, source: list[str]) -> None:
    """Append hidden toctrees to a page's text."""
    if page == ROOT:
        for caption, entries in captions(source[0]):
            lines = "\n".join(f"{title} <{name}>" for title, name in entries)
            source[0] += TREE.format(caption=caption, entries=lines)
    elif children := below(page, app.env.found_docs):
        lines = "\n".join("/" + child for child in children)
        source[0] += TREE.format(caption="Pages", entries=lines)


def forget(app: Sphinx, *_: object) -> list[str]:
    """Read pages that have pages below them again: a new one may have come."""
    return [page for page in app.env.found_docs if below(page, app.env.found_docs)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", add_trees)
    app.connect("env-get-outdated", forget)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
