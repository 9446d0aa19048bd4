"""An audit as one HTML file: no script, no network, images inside."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from raysynth.inspection.findings import Findings
from raysynth.inspection.tables import percent
from raysynth.storage.files import write_atomic


def page(audit: Findings) -> str:
    """The whole file."""
    return _rendered("page.html.j2", audit)


def body(audit: Findings) -> str:
    """What stands on the page, for a notebook."""
    return _rendered("body.html.j2", audit)


def write(audit: Findings, path: str) -> None:
    """Write the file to a path or URI, whole or not at all."""
    write_atomic(path, page(audit).encode())


def _rendered(name: str, audit: Findings) -> str:
    environment = Environment(
        loader=PackageLoader("raysynth.inspection"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "src": _source}
    rendered: str = environment.get_template(name).render(a=audit)
    return rendered


def _source(data: bytes) -> Any:
    kind = "png" if data.startswith(b"\x89PNG") else "webp" if data[:4] == b"RIFF" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
