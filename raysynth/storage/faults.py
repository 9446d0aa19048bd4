"""Errors of a storage: which are over in a moment, and what the user is told of them.

No file system is imported for it.
"""

from __future__ import annotations

import errno

from raysynth.errors import StorageError
from raysynth.terminal import masked

AWAY = frozenset(
    {
        *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.EREMOTEIO, errno.EPIPE),
        *(errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
"""Errors of a storage that may be back in a moment."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FOREIGN = {
    ("botocore", "ConnectionError"),
    ("botocore", "HTTPClientError"),
    ("aiohttp", "ClientError"),
    ("requests", "ConnectionError"),
    ("google", "TransportError"),
}
"""Packages and classes that mean the same and are no OSError; they may not be installed."""
PACKAGES = ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "azure", "adlfs")


def is_away(error: BaseException) -> bool:
    """Whether a storage's error may be over in a moment."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in AWAY
    classes = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return bool(classes & FOREIGN)


def is_full(error: BaseException) -> bool:
    """Whether there was no room."""
    return isinstance(error, OSError) and error.errno in FULL


def may_pass(error: StorageError) -> bool:
    """Whether a storage may be back, or have room, in a moment; one that refuses goes on."""
    cause = error.__cause__
    return cause is None or is_away(cause) or is_full(cause)


def storage_error(error: BaseException, path: str) -> StorageError | None:
    """What the user is told of an error of the storage of `path`; None: it is not the storage's."""
    where, reason = masked(path), masked(f"{error}" or type(error).__name__)
    if is_full(error):
        return StorageError(
            f"disk full at {where} ({reason}). Fix: make room there; what "
            "is finished is kept, and the same command goes on"
        )
    if is_away(error):
        return StorageError(
            f"{where}: the storage does not answer ({reason}). Fix: see that it can be reached; "
            "what is finished is kept, and the same command goes on"
        )
    refused = isinstance(error, PermissionError) or (
        isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES)
    )
    if refused or type(error).__module__.partition(".")[0] in PACKAGES:
        return StorageError(
            f"{where}: the storage refuses ({reason}). Fix: its address, the credentials and what "
            "they allow; what is finished is kept, and the same command goes on"
        )
    return None
