"""The benchmarks' scripts start, each in a process of its own, as the documents call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))

# What libraries they import is imported once, by the one that needs most of them; each script then
# runs in a process of its own, and imports what lies beside it itself.
EACH = """
import os, runpy, sys
import _pytest, hypothesis, ray.data, ray.train, ray.tune
path, libraries = list(sys.path), set(sys.modules)
sys.path.insert(0, sys.argv[1])
import neighbours
root = os.path.dirname(sys.argv[1])
beside = tuple(os.path.join(root, name) for name in ("benchmarks", "pretraining", "tests"))
for name in set(sys.modules) - libraries:
    if str(getattr(sys.modules[name], "__file__", "")).startswith(beside):
        del sys.modules[name]
sys.path[:] = path
failed = []
for script in sys.argv[2:]:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        sys.argv = [script, "--help"]
        sys.path.insert(0, os.path.dirname(script))
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(bool(end.code))
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(os.path.basename(script))
sys.exit(f"without --help: {failed}" if failed else 0)
"""


def test_every_script_says_how_it_is_called(tmp_path):
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", EACH, str(ROOT / "benchmarks"), *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, env=alone, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_alone = [script for script in SCRIPTS if "__main__" in script.read_text()]
    assert done.stdout.count("usage: ") == len(run_alone)


def test_what_lies_beside_the_package_is_found(tmp_path):
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", "import checkout, pretraining, tests"]
    folder = str(ROOT / "benchmarks")
    subprocess.run(command, check=True, env=alone | {"PYTHONPATH": folder}, cwd=tmp_path)


@pytest.mark.slow
def test_a_simulated_run_loses_no_image_and_asks_little():
    """Workers that are lost and a driver that is killed: the script itself compares shards."""
    command = [sys.executable, str(ROOT / "benchmarks/simulate.py"), "--quick"]
    size = ["--images", "50000", "--workers", "8", "--adapters", "40"]
    done = subprocess.run([*command, *size], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["numbers"]["generation"]
    plain, spot, tenth, killed = told.values()
    assert plain["images_drawn_again"] == 0 and plain["list_requests"] == 1
    assert 0 < killed["images_drawn_again"] <= 8 * 64 and killed["list_requests"] == 2
    for one in (spot, tenth, killed):
        assert one["shards"] == plain["shards"] == 52
        assert one["hours"] >= plain["hours"]
