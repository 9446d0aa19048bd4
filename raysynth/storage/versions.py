"""What a storage says of a file's content, without reading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TAGS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "blob_id")
"""What object stores call the hash of an object (S3, Google Cloud Storage, Azure, the hub)."""
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


def said_hash(facts: Mapping[str, Any]) -> str:
    """An object's hash, of fsspec's facts of it; "" where the storage says none."""
    return _first(facts, TAGS)


def said_time(facts: Mapping[str, Any]) -> str:
    """When a file was last written, in the storage's own form; "" where it does not say."""
    return _first(facts, TIMES)


def _first(facts: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((str(facts[key]) for key in keys if facts.get(key)), "")
