"""What a job is sent, and what is refused before anything is."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from raysynth.errors import ConfigError, DataError
from raysynth.jobs.client import Jobs, _address, exit_code
from raysynth.jobs.package import LIMIT_BYTES, check_size, is_checkout, packed
from raysynth.jobs.submit import order_again, order_of, submitted


def test_the_package_that_is_sent_runs_by_itself(tmp_path):
    with packed(b"name: sent\nstorage_path: /shared\n", code=True) as folder:
        assert not list(folder.rglob("__pycache__"))
        told = "import raysynth, importlib.metadata as m; "
        told += "print(raysynth.__file__, m.distribution('raysynth')._path)"
        done = subprocess.run(
            [sys.executable, "-c", told], cwd=folder, env={}, capture_output=True, text=True
        )
        package, about = done.stdout.split()
        assert package == f"{folder}/raysynth/__init__.py", done.stderr
        assert (folder / about / "METADATA").is_file()
        assert (folder / "config.yaml").read_bytes().startswith(b"name: sent")
    assert not folder.exists()


def test_an_image_that_has_raysynth_is_sent_the_configuration_alone():
    with packed(b"name: sent\n", code=False) as folder:
        assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    with packed(None, code=False) as folder:
        assert not list(folder.iterdir())


def test_too_large_an_upload_is_refused_with_what_is_large():
    check_size([("a", LIMIT_BYTES - 1000)])
    with pytest.raises(ConfigError, match=r"has 110\.0 MiB, .* takes 100; .* b \(90\.0 MiB\), a"):
        check_size([("a", 20 << 20), ("b", 90 << 20)])


def test_this_is_a_checkout_and_an_installed_package_is_none(tmp_path):
    assert is_checkout() and not is_checkout(tmp_path / "site-packages" / "raysynth")


def test_the_command_is_that_of_a_plain_run(tmp_path):
    file = tmp_path / "birds.yaml"
    file.write_text("name: birds\nstorage_path: /shared/runs\n")
    order = order_of([str(file), "seed=1", "prompts.template=a photo of {label}"], "search")
    assert order.run == "/shared/runs/birds" and order.file == file.read_bytes()
    assert order.entrypoint == (
        "exec python -m raysynth run --until search config.yaml seed=1 "
        "'prompts.template=a photo of {label}'"
    )
    assert order_of(["storage_path=/shared"], None).entrypoint == (
        "exec python -m raysynth run storage_path=/shared"
    )
    again = order_again(order.config, None)
    assert again.entrypoint == "exec python -m raysynth run config.yaml"


@pytest.mark.parametrize(
    ("arguments", "until", "message"),
    [
        (["storage_path=runs"], None, r"relative path 'runs' inside a Ray job"),
        (["storage_path=/s", "dataset.severty=1"], None, "Did you mean `severity`"),
        (["storage_path=/s"], "serach", r"--until: got 'serach', expected one of ingest"),
        (["storage_path=/s", "base.name=./models/own"], None, r"base\.name: got the relative path"),
        (
            ["storage_path=/s", "finetune.start=./lora"],
            None,
            r"finetune\.start: got the relative path",
        ),
        (["storage_path=/s", "finetune.overrides={9-9: {rank: 2}}"], None, "9-9"),
    ],
)
def test_what_the_job_would_refuse_is_refused_before_it(arguments, until, message):
    with pytest.raises((ConfigError, DataError), match=message):
        order_of(arguments, until)


def test_what_only_the_nodes_see_is_left_to_the_job(tmp_path, capsys):
    dataset = ["dataset.name=waterbirds", "dataset.path=/only/there/birds"]
    order_of(["storage_path=s3://bucket/runs", *dataset], None)
    assert "not here: dataset.path=/only/there/birds" in capsys.readouterr().err


def test_an_id_that_is_no_part_of_an_address_is_refused():
    order = order_of(["storage_path=/s"], None)
    with pytest.raises(ConfigError, match=r"--id: got 'a/b'"):
        submitted(order, None, "a/b", wait=False, installed=True)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("STOPPED", None, 143),
        ("FAILED", 2, 2),
        ("FAILED", -9, 137),
        ("FAILED", None, 3),
    ],
)
def test_exit_codes(status, code, expected):
    assert exit_code(SimpleNamespace(status=status, driver_exit_code=code)) == expected


def test_the_address_is_the_argument_the_environment_or_this_machine(monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
    assert _address(None) == "http://127.0.0.1:8265"
    assert _address("https://head:8265") == "https://head:8265"
    assert _address(None) == "https://head:8265"  # Ray's client reads the environment
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:1")
    assert _address("http://head:8265") == "http://head:8265"
    with pytest.raises(ConfigError, match=r"got ray://head:10001, expected the http"):
        Jobs("ray://head:10001")
