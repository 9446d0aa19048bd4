"""Odd input of every kind ends in success or in a refusal in words, soon, and ends no process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_fuzz(*given: object) -> subprocess.CompletedProcess[str]:
    """The script, which exits with 1 where an input ends otherwise."""
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *map(str, given)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_few_odd_inputs_of_every_kind_end_well(tmp_path):
    done = run_fuzz("--inputs", 10, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_odd_inputs_of_every_kind_end_well(tmp_path):
    done = run_fuzz("--inputs", 200, "--seed", 1000, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
