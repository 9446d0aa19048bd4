"""An audit as one HTML file: no script, no network, images inside."""

from __future__ import annotations

from raysynth.inspection.findings import Findings
from raysynth.inspection.tables import percent
from raysynth.pages import data_uri, templates
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
    environment = templates("raysynth.inspection", percent=percent, src=data_uri)
    rendered: str = environment.get_template(name).render(a=audit)
    return rendered
