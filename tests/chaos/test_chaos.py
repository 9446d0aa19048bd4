"""The suite itself: what harms, what counts, what is told; and a few moments of every fault."""

from __future__ import annotations

import http.client
import http.server
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.chaos.comparing import compare
from tests.chaos.damage import cut, empty, fewer, poison
from tests.chaos.driver import Driver, said
from tests.chaos.faults import FAULTS
from tests.chaos.following import Follower, WentOn
from tests.chaos.harness import findings, planned, read_records, shortfall, table
from tests.chaos.miniature import ROOT, STAGES
from tests.chaos.proxy import Proxy
from tests.chaos.scene import Moment, Record


@pytest.fixture
def dice():
    return random.Random(3)


def write(folder, ids=("a", "b", "c")):
    """A stage's folder: a table, weights, a record, a picture."""
    folder.mkdir()
    images = [f"image of {name}" for name in ids]
    pq.write_table(pa.table({"id": ids, "image": images}), folder / "rows.parquet")
    save_file({"w": torch.arange(4.0), "b": torch.ones(2)}, folder / "w.safetensors")
    (folder / "results.json").write_text(json.dumps({"wga": 0.5, "seconds": random.random()}))
    (folder / "plot.png").write_bytes(os.urandom(8))
    return folder


def test_equal_outputs_are_equal_but_for_times_and_pictures(tmp_path):
    found = compare(write(tmp_path / "one"), write(tmp_path / "two"))
    assert (found.things, found.equal, found.lost, found.doubled) == (6, 6, 0, 0)
    assert found.differ == found.stray == []


def test_what_is_lost_doubled_changed_and_stray_is_counted(tmp_path):
    reference, folder = write(tmp_path / "one"), write(tmp_path / "two", ("a", "a", "c"))
    save_file({"w": torch.zeros(4), "b": torch.ones(2)}, folder / "w.safetensors")
    (folder / "plot.png").unlink()
    (folder / "rows.parquet.tmp").touch()
    found = compare(folder, reference)
    assert (found.things, found.equal, found.lost, found.doubled) == (6, 3, 2, 1)
    assert found.differ == ["plot.png", "rows.parquet", "w.safetensors"]
    assert found.stray == ["rows.parquet.tmp"]


def test_harm_is_of_its_kind_and_leaves_copies_whole(tmp_path, dice):
    folder = write(tmp_path / "one")
    twin = tmp_path / "twin.parquet"
    os.link(folder / "rows.parquet", twin)
    assert fewer(folder / "rows.parquet", dice).endswith("of 3 rows")
    assert pq.read_table(folder / "rows.parquet").num_rows < 3 == pq.read_table(twin).num_rows
    size = (folder / "w.safetensors").stat().st_size
    assert "in " in poison(folder / "w.safetensors", dice)
    values = torch.cat([*load_file(folder / "w.safetensors").values()])
    assert (~values.isfinite()).sum() == 1 and (folder / "w.safetensors").stat().st_size == size
    fewer(folder / "w.safetensors", dice)
    assert len(load_file(folder / "w.safetensors")) == 1
    assert "cut to" in cut(folder / "w.safetensors", dice)
    assert 0 < (folder / "w.safetensors").stat().st_size < size
    empty(folder / "results.json", dice)
    assert (folder / "results.json").read_bytes() == b""


def test_a_manifest_without_a_shard_is_consistent(tmp_path, dice):
    path = tmp_path / "manifest.json"
    shards = [{"file": f"{n}.parquet", "rows": n} for n in (3, 5)]
    path.write_text(json.dumps({"rows": 8, "shards": shards}))
    said = fewer(path, dice)
    left = json.loads(path.read_text())
    assert left["rows"] == left["shards"][0]["rows"] and str(8 - left["rows"]) in said


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given):
        pass


@pytest.fixture
def proxy():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.handle_error = lambda *given: None  # of connections that are broken off
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Proxy(server.server_port, seed=1) as between:
        yield between
    server.shutdown()
    server.server_close()


def put(proxy, body=b"x" * 200_000, timeout=10.0):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
    try:
        connection.request("PUT", "/", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_proxy_hands_on_and_counts(proxy):
    assert put(proxy) == (200, b"x" * 200_000)
    assert (proxy.requests, proxy.answers, proxy.failed) == (1, 1, 0)


def test_the_proxy_is_silent_and_comes_back(proxy):
    proxy.silence()
    with pytest.raises(TimeoutError):
        put(proxy, timeout=0.3)
    threading.Timer(0.3, proxy.serve).start()
    began = time.monotonic()
    assert put(proxy)[0] == 200 and time.monotonic() - began >= 0.25


def test_the_proxy_refuses_and_comes_back_at_its_port(proxy):
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionError):
        put(proxy)
    proxy.serve()
    assert put(proxy)[0] == 200 and proxy.port == port


def test_the_proxy_fails_a_share_of_requests_and_one_for_sure(proxy):
    proxy.failing = 0.2
    found = [put(proxy, b"y")[0] for _ in range(100)]
    assert set(found) == {200, 503} and 8 <= found.count(503) == proxy.failed <= 35
    proxy.failing, proxy.sure = 0.0, proxy.requests + 1
    assert [put(proxy, b"y")[0] for _ in range(2)] == [503, 200]


def test_work_is_followed_by_what_lies_in_the_folder(tmp_path):
    run = tmp_path / "mini"
    follower = Follower(run, "finetune")
    assert follower.look() == 0
    notes = run / ".partial" / "finetune-abc" / ".train" / "progress"
    notes.mkdir(parents=True)
    (notes / "pack-0.json").write_text(json.dumps({"steps": {"0-0": 8, "1-0": 4}}))
    found = WentOn(follower, since=0.0)
    found.look(1.0)
    assert (found.before, found.seconds) == (12, None)
    (notes / "pack-0.json").unlink()
    found.look(2.0)
    (notes / "pack-0.json").write_text(json.dumps({"steps": {"0-0": 8}}))
    found.look(3.04)
    assert (found.seconds, found.after) == (3.0, 8)
    other = Follower(run, "references")
    (run / ".partial" / "references-x").mkdir()
    assert other.look() == 0
    (run / ".partial" / "references-x" / "unit.json").write_text("1")
    assert other.look() == other.look() == 1


def test_what_the_user_saw_is_what_an_undisturbed_run_does_not_say():
    usual = "  clusters: coat/grass [16]\n✓ finetune 37.2 s  6 rows\n/a/mini/real\n"
    text = (
        "  clusters: coat/grass [15]\n  finetune workers 0/144 (5 s)\n✓ finetune 1 s\n/b/mini/real"
    )
    assert said([text], usual) == ("nothing", 0)
    more = "  a shard waits\n(raylet) A worker died\nraysynth: disk full at /b/mini/x. Fix: room\n"
    assert said([text, more], usual) == ("raysynth: disk full at RUN/x. Fix: room", 1)
    assert said([text, more.partition("\n")[0]], usual) == ("a shard waits", 0)
    assert said([text, more.splitlines()[1]], usual) == ("(raylet) A worker died", 1)


def test_a_driver_that_runs_too_long_is_ended_with_what_it_started(tmp_path):
    program = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    program += "; time.sleep(60)"
    with Driver([sys.executable, "-c", program], os.environ, tmp_path / "log", 2.0) as driver:
        with pytest.raises(Exception, match="still runs after 2 s"):
            driver.end()
        child = int(driver.text)
    assert driver.code is not None
    assert not os.path.exists(f"/proc/{child}")


def test_moments_are_dealt_to_the_stages_in_turn():
    moments = planned(2, 7, ["worker", "kill"], STAGES)
    assert moments == [
        Moment("worker", "finetune", 0, 7),
        Moment("kill", "ingest", 0, 7),
        Moment("worker", "finetune", 1, 7),
        Moment("kill", "clustering", 0, 7),
    ]
    assert moments[0].dice.random() == Moment("worker", "finetune", 0, 7).dice.random()
    assert moments[0].dice.random() != moments[2].dice.random()
    assert planned(1, 0, ["worker"], ["search"]) == []


def test_the_table_counts_trials_and_the_rest_is_named(tmp_path):
    good = Record("kill", "search", 0, 0, things=9, equal=9, codes=[-9, 0], seconds=4.0)
    bad = Record("kill", "report", 0, 0, things=9, equal=8, lost=1, codes=[-9, 0], seconds=40.0)
    none = Record("actor", "synthesis", 0, 0, problem="MissedError: too late")
    path = tmp_path / "chaos.jsonl"
    lines = [json.dumps(vars(record)) for record in (none, bad, bad, good)]
    path.write_text("\n".join(lines) + "\n" + lines[0][:-9] + "\n")
    records = read_records(path)
    assert records == [none, bad, good] and [r.well for r in records] == [False, False, True]
    assert not replace(good, codes=[1, 0]).well and not replace(good, codes=[-9, 3]).well
    told = table(records).splitlines()
    assert len(told) == 3 and "generating actor" not in told[2]
    assert told[2].startswith(
        "| driver killed | search 1, report 1 | 2 | 1 | 0 | 17 of 18 | 22, 40"
    )
    assert "MissedError" in findings(records) and "lost 1" in findings(records)
    moments = [Moment("kill", "search", 0, 0), Moment("actor", "synthesis", 0, 0)]
    assert shortfall(moments, records) == "actor in synthesis: 1"


def test_every_fault_has_stages_and_a_share_of_the_work_that_its_seed_decides():
    assert all(set(fault.stages) <= set(STAGES) for fault in FAULTS.values())
    shares = [Moment("kill", "search", n, 0).dice.random() for n in range(200)]
    assert math.isclose(sum(shares) / 200, 0.5, abs_tol=0.1)


def run_chaos(*given: object) -> subprocess.CompletedProcess[str]:
    """The script, which exits with 1 where something was lost."""
    command = [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), *map(str, given)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def chaos_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chaos")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("fault", ["worker", "actor", "trial", "poisoned"])
def test_nothing_is_lost(chaos_folder, fault):
    """A moment of the faults that every cluster sees; all of them are the script's."""
    stages = ["--stage", FAULTS[fault].stages[0]]
    done = run_chaos("--folder", chaos_folder, "--only", fault, "--moments", 1, *stages)
    assert done.returncode == 0, done.stdout + done.stderr
