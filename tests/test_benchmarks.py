"""The benchmarks' scripts start, each in a process of its own, as the documents call them."""

from __future__ import annotations

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
