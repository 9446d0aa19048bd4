"""`raysynth doctor`: one line per check, the fix beside it, and the exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from raysynth.cli import main
from raysynth.doctor.check import CHECKS, FAIL, OK, WARN, Finding
from raysynth.doctor.examine import exit_code, line
from raysynth.storage.files import sizes_below
from tests.rays import environment, ray_head, ray_node

FEW = ["dataset.train_images=160", "dataset.severity=0.8"]


def doctor(monkeypatch, capsys, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """Exit code, and check -> its lines."""
    monkeypatch.setattr(sys, "argv", ["raysynth", "doctor", *FEW, *arguments])
    monkeypatch.setenv("RAY_AUTH_TOKEN", "one's own")  # Ray leaves its file open to everybody
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), lines_of(capsys.readouterr().out)


def lines_of(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in text.splitlines():
        mark, name, told = each.split(maxsplit=2)
        assert mark == OK or "Fix: " in told, each
        found.setdefault(name, []).append(f"{mark} {told}")
    return found


def test_the_exit_code_is_that_of_the_worst():
    good, warning = Finding(OK, "fine"), Finding(WARN, "odd", "mend")
    broken, away = Finding(FAIL, "no", "mend"), Finding(FAIL, "away", "wait", passing=True)
    assert exit_code([good, warning]) == 0
    assert exit_code([good, away, away]) == 3
    assert exit_code([away, broken]) == 2
    assert line("disk", broken) == "fail  disk           no. Fix: mend"


def test_checks_have_an_order_of_their_own():
    assert len({check.order for check in CHECKS.each()}) == len(CHECKS.names)


def test_on_this_machine_no_ray_is_started(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("a Ray was started"))
    code, found = doctor(monkeypatch, capsys, f"storage_path={tmp_path}")
    assert code == 0, found
    assert set(found) == set(CHECKS.names) - {"folders"}  # of nodes
    assert not [*tmp_path.iterdir()]


def test_what_is_wrong_is_said_at_once_and_the_rest_is_looked_at(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # another test's Ray may be
    code, found = doctor(
        monkeypatch,
        capsys,
        "resources.address=127.0.0.1:1",
        "base.name=/nowhere",
        f"storage_path={tmp_path}",
    )
    assert code == 2
    assert "nothing answers at 127.0.0.1:1" in found["address"][0]
    assert "no folder /nowhere" in found["models"][0]
    assert found["storage"][0].startswith("ok")


def test_a_storage_that_is_away_is_worth_another_try(monkeypatch, capsys, s3_server):
    for name, value in {**s3_server, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    code, found = doctor(monkeypatch, capsys, "storage_path=s3://bucket/runs")
    s3fs.S3FileSystem.clear_instance_cache()
    assert code == 3, found
    assert "does not answer" in found["storage"][0]


@pytest.mark.cluster
def test_every_node_is_looked_at(s3, tmp_path):
    """Two nodes; the second leads its storage to a port that nobody listens at."""
    env = environment(AWS_MAX_ATTEMPTS="1")
    lost = {**env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    flags = ("--num-cpus=1",)

    def examine(*given: str) -> tuple[int, dict[str, list[str]], str]:
        command = [sys.executable, "-m", "raysynth", "doctor", *FEW, f"resources.address={address}"]
        made = subprocess.run([*command, *given], env=env, capture_output=True, text=True)
        return made.returncode, lines_of(made.stdout), made.stdout + made.stderr

    with ray_head(env, *flags) as address, ray_node(lost, f"--address={address}", *flags):
        two = "in the driver and on 2 nodes"
        code, found, text = examine(f"storage_path={tmp_path}/runs")
        assert code == 0, text
        assert all(two in found[name][-1] for name in ("versions", "token", "storage", "models"))
        assert "2 nodes, 2 CPUs, 0 GPUs" in found["address"][0]
        assert "one machine, and one folder" in found["folders"][0]  # as these two are started
        assert not [*tmp_path.iterdir()]
        code, found, text = examine(f"storage_path={s3}/runs")
        bad, good = found["storage"]
        assert code == 3, text
        assert bad.startswith("fail ") and address.partition(":")[0] in bad
        assert "does not answer" in bad and "127.0.0.1:9" in bad
        assert "in the driver and on 1 node" in good
        assert sizes_below(f"{s3}/runs") == {}
