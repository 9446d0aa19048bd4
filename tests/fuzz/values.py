"""Odd values and changes that all targets share: near-valid, as tools and hands make them."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

DEEP = 1500
"""Levels, beyond Python's recursion limit."""
ODD_WORDS = (
    "", " ", "\t", "\n", "\r\n", "\0", "\x1b[31m", "\u202e", "\ufeff", "é", "日本", "🙂", "e\u0301",
    "[/x]", "[red]", "a/b", "a\\b", "../x", "/etc/passwd", "..", ".", "~", "~nosuchuser/x", "-",
    "--",
    "0", "1", "-1", "01", "1e3", "1.0", "0x10", "1_000", "nan", "NaN", "inf", "None", "null", "NA",
    "true", "True", "yes", "no", "on", "a,b", 'a"b', "a'b", "a;b", "a=b", "a b", "a_b", "{label}",
    "{label.x}", "{0}", "{", "%s", "$HOME", "x" * 300, "x" * 5000, "9" * 30, "s3://b/x", "foo://x",
    "memory://x", "http://127.0.0.1:9/x", "file:///nowhere", "s3://KEY:SECRET@bucket/x", "a..b:1",
    "127.0.0.1:9", "2024-01-01", "<script>", "|", "`x`", "&amp;",
)  # fmt: skip
ODD_NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 256, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63,
    -(2**63), 2**64, 10**15, 10**30, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-300, 1e300, 1e-9,
    0.99, 0.9999999999, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
words = st.one_of(st.sampled_from(ODD_WORDS), st.text(max_size=12))
numbers = st.one_of(
    st.sampled_from(ODD_NUMBERS), st.integers(-3, 300), st.floats(allow_nan=True, width=32)
)
scalars = st.one_of(st.none(), st.booleans(), numbers, words)
odd = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.dictionaries(words, scalars, max_size=3),
    st.lists(st.lists(scalars, max_size=2), max_size=2),
    st.sampled_from(({}, [], [[]], [{}], {"a": {"b": {"c": 1}}})),
)
"""Any JSON value of odd shape."""
ODD_BYTES = (
    b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\x1a", b'"', b"'", b",", b"{",
    b"}",
    b"[", b"]", b":", b"\t", b"- ", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
    b"&a ", b"*a", b"!!", b"%", b"\\", b"NaN", b"1e999", b"\xed\xa0\x80", b"\xc3",
    b"version https://",
)  # fmt: skip


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes, most: int = 3) -> bytes:
    """Bytes cut, doubled, overwritten, or with something put between them."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(("cut", "drop", "put", "set", "flip", "double", "swap")))
        span = draw(st.integers(1, 24))
        if how == "cut":
            data = data[:at]
        elif how == "drop":
            data = data[:at] + data[at + span :]
        elif how == "put":
            data = data[:at] + draw(st.sampled_from(ODD_BYTES)) + data[at:]
        elif how == "set":
            with_ = draw(st.sampled_from(ODD_BYTES))
            data = data[:at] + with_ + data[at + len(with_) :]
        elif how == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << span % 8)]) + data[at + 1 :]
        elif how == "double":
            data = data[: at + span] + data[at:]
        elif how == "swap":
            other = draw(st.integers(0, len(data)))
            data = data[:at] + data[other : other + span] + data[at + span :]
    return data


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON value has nodes."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(found for key, each in inner for found in paths_of(each, (*path, key)))]


@st.composite
def changed_json(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """A JSON value with nodes replaced, removed, renamed, doubled or nested."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(paths_of(value)))
        if not path:
            if draw(st.integers(0, 7)) == 0:
                value = deepcopy(draw(odd))
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        last = path[-1]
        how = draw(st.sampled_from(("odd", "odd", "number", "word", "drop", "rename", "nest")))
        if how == "drop":
            del holder[last]
        elif how == "rename" and isinstance(holder, dict):
            holder[draw(words)] = holder.pop(last)
        elif how == "nest":
            holder[last] = [holder[last]]
        else:
            holder[last] = deepcopy(draw({"number": numbers, "word": words}.get(how, odd)))
    return value


@st.composite
def json_file(draw: st.DrawFn, value: Any) -> bytes:
    """The file of a JSON value that is changed as a value, as text, or both."""
    how = draw(st.sampled_from(("value", "value", "value", "text", "both", "odd")))
    if how == "odd":
        return draw(st.sampled_from(ODD_FILES))
    if how != "text":
        value = draw(changed_json(value))
    text = json.dumps(value, indent=draw(st.sampled_from((None, 1)))).encode()
    return draw(changed_bytes(text)) if how != "value" else text


ODD_FILES = (
    b"", b" ", b"\0", b"null", b"[]", b"{}", b"0", b'"x"', b"{", b"[1,", b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}", b"\xff", b"NaN", b"[" * DEEP, b'{"a":' * DEEP, b'{"a":1,"a":2}', b"1" * 5000,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", b"<html></html>",
)  # fmt: skip
