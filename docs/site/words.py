"""Glossary: the first use of a word of docs/words.md on a page leads to its row there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx

PAGE = "docs/words"
PLAIN = {
    *("audit", "benchmark", "cell", "cluster", "control", "copy", "family", "floor", "head"),
    *("interval", "leak", "part", "reference", "row", "run", "shared", "stage", "test", "train"),
    "validation",
}
"""Words that a page also uses in their plain sense: nothing leads from them."""
SILENT = (
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.raw,
    nodes.thead,
    nodes.caption,
)


def words_of(cell: nodes.Element) -> list[str]:
    """The words that a row of the glossary explains: its first cell without code."""
    code = "".join(
        str(text) for text in cell.findall(nodes.Text) if not isinstance(text.parent, nodes.literal)
    )
    return [word for each in re.split(r"[,:;]", code) if (word := each.strip())]


def anchor_of(word: str) -> str:
    """The id of a word's row."""
    return "word-" + re.sub(r"\W+", "-", word.lower())


def rows(tree: nodes.document) -> Iterator[tuple[list[str], nodes.Element, str]]:
    """(Words, first cell, meaning) of every row of the glossary."""
    for body in tree.findall(nodes.tbody):
        for row in body.findall(nodes.row):
            first, meaning = row.children[:2]
            yield words_of(first), first, meaning.astext()


def name_rows(app: Sphinx, tree: nodes.document) -> None:
    """Give the glossary's rows their ids."""
    if app.env.docname == PAGE:
        for words, cell, _ in rows(tree):
            for word in words:
                cell.insert(0, nodes.target("", "", ids=[anchor_of(word)]))


def glossary(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Word as it may be written -> (id, meaning)."""
    if not hasattr(app, "raysynth_words"):
        tree = app.env.get_doctree(PAGE)
        app.raysynth_words = {
            word if word[:2].isupper() else word.lower(): (anchor_of(word), meaning)
            for words, _, meaning in rows(tree)
            for word in words
            if word not in PLAIN
        }
    return app.raysynth_words


def link_words(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Link the first use of each word of a page."""
    if page == PAGE or app.builder.format != "html":
        return
    linked_already = {link.astext().lower() for link in tree.findall(nodes.reference)}
    left = {word: row for word, row in glossary(app).items() if word.lower() not in linked_already}
    for text in list(tree.findall(nodes.Text)):
        if not silent(text):
            linked = list(split(str(text), left, app.builder.get_relative_uri(page, PAGE)))
            if len(linked) > 1:
                text.parent.replace(text, linked)


def silent(text: nodes.Text) -> bool:
    """Whether a text stands where nothing is linked."""
    node: nodes.Node | None = text.parent
    while node is not None:
        if isinstance(node, SILENT):
            return True
        node = node.parent
    return False


def split(text: str, left: dict[str, tuple[str, str]], target: str) -> Iterator[nodes.Node]:
    """Pieces of a text: words that are left become references, and are left no more."""
    while left:
        either = "|".join(re.escape(word) for word in sorted(left, key=len, reverse=True))
        found = re.search(rf"(?<![\w/.-])(?:{either})(?=s?\b(?![-/]))", text, re.IGNORECASE)
        if not found:
            break
        written = found[0] if found[0] in left else found[0].lower()
        if written in left:
            anchor, meaning = left.pop(written)
            yield nodes.Text(text[: found.start()])
            link = nodes.reference("", found[0], refuri=f"{target}#{anchor}", internal=True)
            link["classes"].append("word")
            link["reftitle"] = meaning
            yield link
        else:
            yield nodes.Text(text[: found.end()])
        text = text[found.end() :]
    yield nodes.Text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", name_rows)
    app.connect("doctree-resolved", link_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
