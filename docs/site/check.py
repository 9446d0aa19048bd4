"""Look at every link of the built site: `python docs/site/check.py build/site`.

Files and anchors of the site itself have to be there; addresses outside are only looked at for
their form, since nothing is asked of a network.
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        """Read it."""
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what leads away, and what can be led to."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name == "id" and value:
                self.ids.add(value)


@cache
def read(file: Path) -> Page:
    """A page, read once."""
    return Page(file.read_text())


def wrong(link: str, file: Path) -> str:
    """What is wrong with a link of a page; empty: nothing."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        known = parts.scheme in ("http", "https") and "." in parts.netloc
        return "" if known or parts.scheme in ("mailto", "data") else "no address"
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.is_file():
        return "no file"
    if parts.fragment and target.suffix == ".html":
        return "" if unquote(parts.fragment) in read(target).ids else "no anchor"
    return ""


def main(folder: str) -> int:
    """Say what is wrong; the number of it."""
    root = Path(folder).resolve()
    pages = sorted(each for each in root.rglob("*.html") if "_static" not in each.parts)
    found = [
        f"{file.relative_to(root)}: {link}: {what}"
        for file in pages
        for link in sorted(read(file).links)
        if (what := wrong(link, file))
    ]
    print(*found, sep="\n", end="\n" if found else "")
    count = sum(len(read(file).links) for file in pages)
    print(f"{len(pages)} pages, {count:,} links, {len(found)} wrong")
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
