"""Pages that are one file: their templates, and pictures inside of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def templates(package: str, **filters: Callable[..., Any]) -> Environment:
    """The templates in a room's folder `templates`, escaped; what is not defined is an error.

    `package`: the room's dotted name. `filters`: name in the templates -> function.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment


def data_uri(data: bytes) -> str:
    """An encoded image (PNG, WebP or JPEG) as a `data:` URI."""
    kind = "png" if data.startswith(b"\x89PNG") else "webp" if data[:4] == b"RIFF" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
