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


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_how_it_is_called(script, tmp_path):
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=alone, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


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
