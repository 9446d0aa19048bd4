"""Where a run may be stored: on what every worker sees and can write, and not among its images."""

from __future__ import annotations

import os
from pathlib import Path

from raysynth.config.ground import RunConfig
from raysynth.errors import ConfigError
from raysynth.terminal import clipped

UNFIT = {
    "memory": "is kept by one process, so workers and the next command see nothing of it",
    "data": "is the data itself and cannot be written",
    "http": "cannot be written",
    "https": "cannot be written",
    "github": "cannot be written",
    "gist": "cannot be written",
    "git": "cannot be written",
    "zip": "is one file, which several workers cannot write",
    "tar": "is one file, which several workers cannot write",
    "libarchive": "is one file, which several workers cannot write",
    "reference": "cannot be written",
    "dvc": "cannot be written",
    "wandb": "cannot be written",
}
WRAPPERS = (
    *("cached", "blockcache", "filecache", "simplecache", "dir", "generic", "dask", "pyscript"),
    *("async_wrapper", "asyncwrapper", "asynclocal", "jupyter", "jlab"),
)
"""fsspec's protocols that wrap another one, in this process."""
UNFIT |= dict.fromkeys(WRAPPERS, "wraps another filesystem in one process")
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
}
"""Packages of the protocols that are met most."""
EXPECTED = "expected a folder that every worker sees, or a URI such as s3://bucket/runs"


def resolve_storage(storage_path: str, in_job: bool | None = None) -> str:
    """An absolute folder or a URI that a run can be stored at; `in_job`: see `load_config`.

    A job's working directory is an unpacked copy that is deleted with the job, so what is written
    to a relative path there would be lost (Ray docs, runtime environments).

    Raises
    ------
    ConfigError
        No storage that workers share; a relative path inside a Ray job.
    """
    if "://" in storage_path:
        _check_protocol(storage_path)
        return storage_path
    if in_job is None:
        in_job = bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))
    if in_job and not os.path.isabs(storage_path):
        raise ConfigError(
            f"storage_path: got the relative path {storage_path!r} inside a Ray job, whose working "
            "directory is a temporary copy; expected an absolute path on storage that every node "
            "sees, or a URI. Fix: storage_path=s3://bucket/runs or storage_path=/mnt/shared/runs"
        )
    return str(Path(storage_path).expanduser().absolute())


def _check_protocol(uri: str) -> None:
    protocol, _, rest = uri.partition("://")
    got = f"storage_path: got {clipped(uri)!r}; "
    if "::" in uri:
        raise ConfigError(f"{got}a chain of filesystems is one process's. Fix: name the last alone")
    if why := UNFIT.get(protocol):
        raise ConfigError(f"{got}{protocol}:// {why}; {EXPECTED}. Fix: storage_path=runs")
    from raysynth.storage.protocols import known_protocols  # only where there is a URI

    known = known_protocols() - set(UNFIT)
    if protocol not in known:
        raise ConfigError(
            f"{got}unknown protocol {clipped(protocol)!r}; expected one of "
            f"{', '.join(sorted(known))}. Fix: correct it, or name a folder"
        )
    if not rest.strip("/") and protocol not in ("file", "local"):
        raise ConfigError(f"{got}no bucket or host; {EXPECTED}. Fix: name it after {protocol}://")


def require_filesystem(uri: str, key: str = "storage_path") -> None:
    """Refuse a URI whose filesystem's package is not installed here; ConfigError, naming `key`."""
    if "://" not in uri:
        return
    from raysynth.storage.protocols import require_package

    protocol = uri.partition("://")[0]
    try:
        require_package(protocol)
    except (ImportError, ValueError) as error:
        package = PACKAGES.get(protocol)
        fix = f"pip install {package}, on every node" if package else "install its package"
        raise ConfigError(
            f"{key}: {protocol}:// needs a package that is not here ({error}). Fix: {fix}"
        ) from None


def check_apart(config: RunConfig) -> None:
    """Refuse a run that is stored among the images it reads.

    A data set is told by the content of all its files: each file of the run would make it
    another one, and no finished stage would be met again.

    Raises
    ------
    ConfigError
        `storage_path` is `dataset.path` or below it.
    """
    for key, path in config.sources.items():
        outer, inner = _place(path), _place(config.root)
        if inner == outer or inner.startswith(outer.rstrip("/") + "/"):
            raise ConfigError(
                f"storage_path: the run's folder {clipped(inner)} lies inside {key} "
                f"({clipped(outer)}), and every file of a run would change the data set; expected "
                "a folder outside it. Fix: storage_path=/another/folder"
            )


def _place(path: str) -> str:
    """A folder without links, or a URI, to be compared."""
    local = path.removeprefix("file://").removeprefix("local://")
    return local.rstrip("/") if "://" in local else os.path.realpath(local)
