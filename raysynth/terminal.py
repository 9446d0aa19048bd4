"""Words of others on a terminal: as they are written, unable to command it, without secrets."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 200
"""Characters of a value that a message shows."""
CONTROLS = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of what is no sign but a command, or ends a line."""
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs that turn the direction of what follows them."""
PASSWORD = re.compile(
    r"(?<!github)://[^/@:\s]{0,200}:(?!\d{1,5}(?:/|\s|$))[^@\s]{0,400}(?=@)", re.IGNORECASE
)
"""`user:password` before a host, or a key and its secret before a bucket; not host:port."""
PARAMETER = re.compile(
    r"([?&;#][^=&?;#\s'\"]{0,40}?(?:secret|token|passw|pwd|key|sig|credential|auth)"
    r"[^=&?;#\s'\"]{0,40}=)[^&\s'\"]+",
    re.IGNORECASE,
)
"""A secret among a URI's parameters."""


def shown(text: str, *, lines: bool = False) -> str:
    """A text whose control characters are spelled (`\\x1b`); `lines`: but for line ends."""
    if text.isprintable():
        return text
    return "".join(
        character if _harmless(character) or (lines and character == "\n") else _spelled(character)
        for character in text
    )


def clipped(text: str, most: int = LONGEST) -> str:
    """A text of at most `most` characters, and how many were left out."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most:,} more)"


def masked(text: str) -> str:
    """A text whose URIs show no password, key or token."""
    return PARAMETER.sub(r"\1***", PASSWORD.sub("://***", text)) if "://" in text else text


def _harmless(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind not in CONTROLS and character not in TURNING


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
