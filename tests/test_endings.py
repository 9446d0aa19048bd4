"""How commands end: one line, the right exit code, and the traceback in a file."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import fsspec
import pytest

from raysynth import cli
from raysynth.cluster import session as cluster
from raysynth.endings import in_words, refusal_in
from raysynth.errors import ConfigError, DataError, FaultError, StageError, StorageError


class EndpointConnectionError(Exception):
    """As botocore has it, whose classes share no base with OSError."""

    __module__ = "botocore.exceptions"


def ended(error: BaseException, folder: Path, capsys, monkeypatch) -> tuple[int, str]:
    """Exit code and standard error of a command whose run ends with an error."""

    def failing(config, until=None, progress=None):
        raise error

    monkeypatch.setattr("raysynth.pipeline.run_pipeline", failing)
    monkeypatch.setattr(
        sys,
        "argv",
        ["raysynth", "run", f"storage_path={folder}", "name=run", "resources.workers=1"],
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("no"), 2, "raysynth: no"),
        (StageError("once more"), 3, "raysynth: once more"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 3, "No space left on device"),
        (ConnectionRefusedError("refused"), 3, "the same command goes on where it was"),
        (EndpointConnectionError("no endpoint"), 3, "EndpointConnectionError: no endpoint"),
        (KeyError("lost"), 1, "unforeseen KeyError: 'lost' (in cli.py, line"),
        (FileNotFoundError(2, "gone", "/x/shard"), 1, "(file /x/shard)"),
        (MemoryError(), 1, "smaller batches"),
        (RecursionError("deep"), 1, "RecursionError: deep"),
        (KeyboardInterrupt(), 130, ""),
        (ValueError("a\nb\x1b[31m" + "c" * 9999), 1, r"a b\x1b[31mccc"),
        (ValueError("at s3://KEY:SEC/RET@bucket/x"), 1, "at s3://***@bucket/x"),
    ],
)
def test_every_error_is_one_line_with_an_exit_code(
    error, code, said, tmp_path, capsys, monkeypatch
):
    (tmp_path / "run").mkdir()
    found, told = ended(error, tmp_path, capsys, monkeypatch)
    assert (found, said in told, "Traceback" in told) == (code, True, False), told
    assert len(told.splitlines()) <= 1 and len(told) < 1000
    traces = list((tmp_path / "run").glob("raysynth-traceback-*.txt"))
    foreign = not isinstance(error, ConfigError | StageError | KeyboardInterrupt)
    assert len(traces) == foreign
    for trace in traces:
        assert str(trace) in told and stat.S_IMODE(os.stat(trace).st_mode) == 0o600
        text = trace.read_text()
        assert "Traceback" in text and "in failing" in text and "SEC/RET" not in text


def test_a_traceback_without_a_run_is_in_the_temporary_folder():
    for folder in (None, "/nowhere/at/all", "s3://bucket/runs/run"):
        with pytest.raises(FaultError) as told, in_words(folder):
            _ = {}["x"]
        path = Path(str(told.value).rpartition("is in ")[2].rstrip(")"))
        assert "KeyError" in path.read_text()
        path.unlink()


def test_a_traceback_of_a_run_on_an_object_store_lies_with_it():
    with pytest.raises(FaultError) as told, in_words("memory://ends/run"):
        _ = {}["x"]
    uri = str(told.value).rpartition("is in ")[2].rstrip(")")
    assert uri.startswith("memory://ends/run/raysynth-traceback-")
    assert "KeyError" in fsspec.filesystem("memory").cat_file(uri.removeprefix("memory:/")).decode()


def test_the_outermost_of_our_own_errors_is_told():
    with pytest.raises(ConfigError, match="row a: path"), in_words():
        try:
            raise DataError("path")
        except DataError as error:
            raise ConfigError("row a: path") from error


def test_the_cleaning_up_does_not_speak_for_a_handled_error():
    """What was raised while another error was handled, and not from it, is its own."""
    try:
        try:
            raise DataError("handled")
        except DataError:
            raise KeyError("fault") from None
    except KeyError as error:
        assert refusal_in(error) is None


def test_what_ray_wraps_is_told_as_what_it_was(ray_local):
    ray = ray_local

    @ray.remote(max_retries=0)
    def refusing(depth: int, kind: str):
        if depth:
            return ray.get(refusing.remote(depth - 1, kind))
        errors = {
            "ours": StorageError("disk"),
            "disk": OSError(errno.ENOSPC, "full"),
            "": KeyError("x"),
        }
        raise errors[kind]

    for depth in (0, 2):
        with pytest.raises(StorageError) as told, in_words():
            ray.get(refusing.remote(depth, "ours"))
        assert str(told.value) == "disk" and told.value.exit_code == 3
    with pytest.raises(StorageError, match=r"^OSError: \[Errno 28\] full"), in_words():
        ray.get(refusing.remote(1, "disk"))
    with pytest.raises(FaultError, match=r"^unforeseen KeyError: 'x'"), in_words():
        ray.get(refusing.remote(1, ""))


def test_what_ray_data_wraps_is_told_as_what_it_was(ray_local, monkeypatch):
    context = ray_local.data.DataContext.get_current()
    monkeypatch.setattr(context, "raise_original_map_exception", False)
    cluster._hush()

    def refusing(batch):
        raise DataError("row 3: no image")

    with pytest.raises(DataError, match=r"^row 3: no image$"), in_words():
        ray_local.data.range(1).map_batches(refusing).materialize()


def test_a_lost_worker_is_another_try(ray_local):
    @ray_local.remote(max_retries=0)
    def dying():
        os._exit(1)

    with pytest.raises(StorageError, match="the same command goes on"), in_words():
        ray_local.get(dying.remote())
