"""Shared fixtures: one real local Ray for the whole session, quiet and without telemetry."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from raysynth import registry
from raysynth.cluster.local import LOCAL_ENVIRONMENT
from raysynth.cluster.session import ENVIRONMENT
from tests.added import write_part

# Before Ray is imported: a stage's test starts no session, which would set them.
for name, value in {**ENVIRONMENT, **LOCAL_ENVIRONMENT}.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


UNTIL = "RAYSYNTH_SLOW_TESTS_UNTIL"
"""Seconds of the epoch from which on no slow test begins: a slow machine's CI has an end, too."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    long = item.get_closest_marker("slow") or item.get_closest_marker("cluster")
    if long and time.time() > float(os.environ.get(UNTIL, "inf")):
        pytest.skip(f"the time for slow tests is over ({UNTIL})")


@pytest.fixture(scope="session")
def ray_local():
    """A local Ray with eight logical CPUs, shared by all tests that need one."""
    import ray

    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=8,
            object_store_memory=300_000_000,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=tempfile.mkdtemp(prefix="ry", dir="/tmp"),
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """An S3 of its own process (moto): how to reach it, and its log."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path(tmp_path_factory.mktemp("s3")) / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield environment, log
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def s3_server(s3_process: tuple[dict[str, str], Path]) -> dict[str, str]:
    """The environment that leads s3fs, pyarrow and Ray to an S3 of the tests' own."""
    return s3_process[0]


@pytest.fixture
def s3_requests(s3_process: tuple[dict[str, str], Path]) -> Callable[[], list[str]]:
    """What that S3 has been asked since the test began: `PUT /bucket/key?parameters`, in order."""
    before = s3_process[1].stat().st_size

    def since() -> list[str]:
        with s3_process[1].open("rb") as log:
            log.seek(before)
            lines = log.read().decode(errors="replace").splitlines()
        found = [re.search(r'"(?:\x1b\[[\d;]*m)*([A-Z]+ /\S*) HTTP/', line) for line in lines]
        return [unquote(match[1]) for match in found if match]

    return since


@pytest.fixture
def s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket's URI; processes started in the test, a Ray among them, inherit how to reach it.

    `ray_local` may be older: what runs in its workers does not know the server.
    """
    import s3fs

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"runs-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def add_part(tmp_path, monkeypatch):
    """Add a part as another installed package would: (kind's folder, name, its file)."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def add(package: str, name: str, text: str) -> None:
        write_part(folder, package, name, text)
        registry.installed.cache_clear()

    known = set(sys.modules)
    yield add
    registry.installed.cache_clear()
    for module in set(sys.modules) - known:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(folder)):
            del sys.modules[module]
