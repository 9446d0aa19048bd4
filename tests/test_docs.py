"""The documents: links lead somewhere, lines are wrapped, and what a reader copies works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from raysynth.metrics import table

ROOT = Path(__file__).parent.parent
PLACES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "deploy/**/*.md")
DOCUMENTS = sorted(file for place in PLACES for file in ROOT.glob(place))
WIDTH = 100
LINK = re.compile(r"\]\(([^()\s]+)\)|^\[[^\]]+\]: +(\S+)|<img src=\"([^\"]+)\"", re.MULTILINE)
names = pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a document with their numbers, without those of code."""
    fenced = False
    for number, line in enumerate(file.read_text().splitlines(), 1):
        fence = line.lstrip().startswith("```")
        if not fenced and not fence and not line.startswith("    "):
            yield number, line
        fenced ^= fence


def anchors(file: Path) -> set[str]:
    """What a link may name after `#`: a heading as GitHub writes it."""
    heads = (line.lstrip("# ") for _, line in prose(file) if line.startswith("#"))
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@names
def test_links_lead_somewhere(file):
    text = re.sub(r"`[^`\n]*`", "", "\n".join(line for _, line in prose(file)))
    dead = []
    for link in filter(None, (link for found in LINK.findall(text) for link in found)):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            target = (file.parent / path) if path else file
            if not target.exists() or (anchor and anchor not in anchors(target)):
                dead.append(link)
    assert not dead


FROZEN = ("notebook", "CHANGELOG.md", "045-decisions-and-notebook.md")
"""Documents that tell of files as they were."""
NAMED = re.compile(r"`((?:raysynth|tests|benchmarks|pretraining|jobs|configs|deploy)/[\w/-]+\.\w+)")


@names
def test_files_that_are_named_are_there(file):
    if not any(each in str(file) for each in FROZEN):
        assert not [name for name in NAMED.findall(file.read_text()) if not (ROOT / name).exists()]


@names
def test_lines_are_wrapped(file):
    """But for tables, code, images, and what an address makes long."""
    long = [
        number
        for number, line in prose(file)
        if len(re.sub(r"https?://\S+", "", line)) > WIDTH and not line.startswith(("|", "!["))
    ]
    assert not long


def test_the_table_of_metrics_is_the_declared_one():
    text = (ROOT / "docs/cluster.md").read_text()
    written = text.partition("<!-- metrics -->\n")[2].partition("<!-- end of metrics -->")[0]
    assert written == table()


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_the_first_pages_stay_short(name):
    assert len((ROOT / name).read_text().splitlines()) <= 120


def test_the_page_of_neighbours_is_what_its_command_writes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    written = import_module("neighbours_page")
    page = (ROOT / "docs/results/neighbours.md").read_text()
    assert page == written.page(written.kept()) and f"\n{written.COMMAND}\n" in page


def test_the_results_are_those_of_the_generated_page():
    def cells(name: str) -> list[list[str]]:
        lines = (ROOT / name).read_text().replace("**", "").splitlines()
        return [[c.strip() for c in line.strip("|").split("|")] for line in lines if "|" in line]

    # The first table of the page; those after it are read first, and overwritten.
    page = reversed(cells("docs/results/outfits.md"))
    written = {row.rstrip("*"): wga[::2] for row, _, *wga in page}
    told = {}
    for method, *wga in cells("docs/results.md"):
        if re.search(r"`\w+`$", method) and len(wga) == 4:
            told[method.split("`")[1]] = wga
    assert len(told) == 8 and told == {row: written[row] for row in told}
