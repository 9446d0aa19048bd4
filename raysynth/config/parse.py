"""YAML as a configuration may be: plain values, no key twice, bounded in size and depth."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.error import Mark
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from raysynth.terminal import clipped

MOST_BYTES = 256 * 1024
"""A configuration's size; the largest in configs/ has 4 kB."""
MOST_VALUES = 20_000
"""Values and keys, counted as often as aliases repeat them."""
DEEPEST = 40
"""Levels of mappings and lists inside each other."""
TAG = "tag:yaml.org,2002:"
PLAIN = {TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


def parse_yaml(text: str) -> Any:
    """The value of one YAML document; keys are read as they are written.

    Texts, numbers, booleans, null, lists and mappings; a date is the text it is written as. Keys of
    mappings are texts, `yes` and `1.0` too; whole numbers stay numbers.

    Raises
    ------
    yaml.YAMLError
        Not YAML, or a key twice, a tag, an alias of what it stands in, too large or too deep.
    """
    if len(text) > MOST_BYTES or len(text.encode(errors="surrogatepass")) > MOST_BYTES:
        raise yaml.YAMLError(f"more than {MOST_BYTES // 1024} kB; expected some settings")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except ValueError as error:  # PyYAML's own, such as of "\\U00110000", which is no character
        raise yaml.YAMLError(clipped(str(error))) from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """SafeLoader without tags that configurations do not need, and with bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """As PyYAML's, which is recursive: bounded."""
        self._depth += 1
        self._values += 1
        mark = self.peek_event().start_mark
        if self._depth > DEEPEST:
            raise ComposerError(None, None, f"nested more than {DEEPEST} levels deep", mark)
        if self._values > MOST_VALUES:
            raise ComposerError(None, None, f"more than {MOST_VALUES:,} values", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are as written; one that is there twice is refused."""
        if not isinstance(node, MappingNode):
            raise ConstructorError(None, None, "a mapping expected", node.start_mark)
        seen: dict[str, Mark] = {}
        for key, _ in node.value:
            if key.tag == TAG + "merge":
                continue
            name = str(_key(key))
            if name in seen:
                raise ConstructorError(
                    f"key {clipped(name)!r} is there twice, first",
                    seen[name],
                    "and again (give it once)",
                    key.start_mark,
                )
            seen[name] = key.start_mark
        self.flatten_mapping(node)
        return {_key(key): self.construct_object(value, deep=True) for key, value in node.value}


def _key(node: Node) -> str | int:
    """A key as it is written; a whole number, written plainly, as a number."""
    if not isinstance(node, ScalarNode) or node.tag not in PLAIN:
        raise ConstructorError(None, None, "a key that is no name", node.start_mark)
    text = str(_text(node))
    number = node.tag == TAG + "int" and text.isascii() and text.isdecimal() and len(text) < 19
    return int(text) if number and str(int(text)) == text else text


def _text(node: ScalarNode) -> Any:
    """A scalar's text, which UTF-8 must be able to hold."""
    try:
        node.value.encode()
    except UnicodeEncodeError:
        raise ConstructorError(None, None, "half a character", node.start_mark) from None
    return node.value


def _measure(node: Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """(values, levels) of a node, aliases counted as what they stand for; YAMLError if too much."""
    mark = node.start_mark
    if id(node) in known:
        if known[id(node)] == (0, 0):
            raise ComposerError(None, None, "an alias of what it stands in", mark)
        return known[id(node)]
    known[id(node)] = (0, 0)
    inside: list[Node] = []
    if isinstance(node, MappingNode):
        inside = [part for pair in node.value for part in pair]
    elif isinstance(node, SequenceNode):
        inside = node.value
    values, levels = 1, 0
    for part in inside:
        more, deep = _measure(part, known)
        values, levels = values + more, max(levels, deep)
    if values > MOST_VALUES or levels >= DEEPEST:
        what = f"{MOST_VALUES:,} values" if values > MOST_VALUES else f"{DEEPEST} levels"
        raise ComposerError(None, None, f"aliases that stand for more than {what}", mark)
    known[id(node)] = (values, levels + 1)
    return known[id(node)]


def _told(construct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """PyYAML's constructor of a scalar; its errors of every class as one of YAML's, with a line."""

    def constructed(loader: _Loader, node: Any) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            kind, text = node.tag.removeprefix(TAG), clipped(str(node.value))
            raise ConstructorError(None, None, f"{text!r} is no {kind}", node.start_mark) from None

    return constructed


def _string(loader: _Loader, node: Any) -> Any:
    loader.construct_scalar(node)
    return _text(node)


def _refused(loader: _Loader, node: Any) -> Any:
    tag = clipped(str(node.tag))
    raise ConstructorError(None, None, f"the tag {tag!r}: write the value itself", node.start_mark)


# Dates and `=` have no meaning here: they are the texts they are written as.
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] in PLAIN]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: _told(construct)
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag in PLAIN
}
for _tag, _construct in ((TAG + "str", _string), (None, _refused)):
    _Loader.yaml_constructors[_tag] = _construct
