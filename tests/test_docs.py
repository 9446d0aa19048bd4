"""The documents: links lead somewhere, lines are wrapped, and what a reader copies works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from raysynth.config.files import load_config
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


MOST_NUMBERS = 8
NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,.]*")
NO_NUMBER = re.compile(r"`[^`]*`|\]\([^)]*\)|https?://\S+|arXiv \S+|\b20\d\d-\d\d-\d\d\b")


@names
def test_a_paragraph_has_few_numbers(file):
    """More of them make a table. Notes of the notebook and the changelog are records."""
    if "notebook" in file.parts or file.name == "CHANGELOG.md":
        return
    lines = (line if line[:1] not in "|#[" else "" for _, line in prose(file))
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. ))", "\n".join(lines))
    full = [
        text for text in paragraphs if len(NUMBER.findall(NO_NUMBER.sub("", text))) > MOST_NUMBERS
    ]
    assert not full


def test_the_page_of_commands_is_what_their_help_says():
    assert (ROOT / "docs/commands.md").read_text() == written_by("commands").page(), "make docs"


def test_the_picture_of_the_stages_is_what_the_code_declares():
    picture = written_by("pipeline")
    assert (ROOT / "docs/images/pipeline.svg").read_text() == picture.picture(), "make docs"
    assert set(picture.PLACES) == {name for edge in picture.edges() for name in edge}


def written_by(script: str) -> ModuleType:
    """A script of docs/site, as a module."""
    spec = spec_from_file_location(f"docs_site_{script}", ROOT / "docs/site" / f"{script}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation():
    """A new page is one bulleted line of docs/index.md."""
    captions = written_by("navigation").captions((ROOT / "docs/index.md").read_text())
    listed = {
        (ROOT / "docs" / f"{page}.md").resolve() for _, pages in captions for _, page in pages
    }
    there = {file for file in DOCUMENTS if file.parent in (ROOT, ROOT / "docs")}
    assert there - listed == {ROOT / "docs/index.md"}
    assert len(captions) == 5 and all(pages for _, pages in captions)


def test_the_first_use_of_a_word_leads_to_its_row():
    words = written_by("words")
    left = {"group": ("word-group", "images of one label and attribute"), "WGA": ("word-wga", "")}
    pieces = list(words.split("Regroup by wga: WGA of a group, groups, WGA.", left, "words.html"))
    links = [each for each in pieces if "refuri" in getattr(each, "attributes", ())]
    assert [each["refuri"] for each in links] == ["words.html#word-wga", "words.html#word-group"]
    assert (
        "".join(each.astext() for each in pieces) == "Regroup by wga: WGA of a group, groups, WGA."
    )
    assert links[1]["reftitle"] == "images of one label and attribute" and not left


def test_the_table_of_metrics_is_the_declared_one():
    text = (ROOT / "docs/cluster.md").read_text()
    written = text.partition("<!-- metrics -->\n")[2].partition("<!-- end of metrics -->")[0]
    assert written == table()


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_the_first_pages_stay_short(name):
    assert len((ROOT / name).read_text().splitlines()) <= 120


def test_the_whole_configuration_is_accepted(tmp_path):
    page = (ROOT / "docs/own-base.md").read_text()
    (tmp_path / "birds.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    config = load_config(str(tmp_path / "birds.yaml"), ["dataset.severity=0.95"])
    assert config.name == "birds" and config.dataset.attribute_words["water"] == "a lake"


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
