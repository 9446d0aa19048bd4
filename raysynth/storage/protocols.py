"""What fsspec knows of a URI's scheme, without opening anything."""

from __future__ import annotations

from fsspec.core import get_filesystem_class
from fsspec.registry import known_implementations, registry


def known_protocols() -> set[str]:
    """Schemes of all filesystems that there are, installed or not."""
    return {*known_implementations, *registry}


def require_package(protocol: str) -> None:
    """ImportError or ValueError where the filesystem of a scheme is not installed here."""
    get_filesystem_class(protocol)
