"""The scripts of jobs/: thin, one per stage, and safe as the first folder of sys.path."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raysynth.method import FOLDERS

JOBS = Path(__file__).parent.parent.parent / "jobs"
SCRIPTS = sorted(JOBS.glob("*.py"))


def test_there_is_one_script_per_stage_and_one_for_all():
    stages = [re.findall(r'job\(until="(\w+)"\)', path.read_text()) for path in SCRIPTS]
    assert sorted(stage for found in stages for stage in found) == sorted(FOLDERS)
    assert "job()" in (JOBS / "full_pipeline.py").read_text()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_no_script_hides_another_module(path):
    assert path.stem not in sys.stdlib_module_names
    assert importlib.util.find_spec(path.stem) is None


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


def test_a_wrong_key_ends_with_code_2_and_no_traceback():
    done = _python(str(JOBS / "full_pipeline.py"), "dataset.severty=0.9")
    assert done.returncode == 2
    assert "severty" in done.stderr and "Did you mean `severity`?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_relative_storage_path_is_refused_inside_a_ray_job():
    inside = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    done = _python(str(JOBS / "ingest.py"), "storage_path=runs", **inside)
    assert done.returncode == 2
    assert "storage_path" in done.stderr and "absolute" in done.stderr


def test_help_says_the_arguments():
    done = _python(str(JOBS / "search.py"), "--help")
    assert done.returncode == 0
    assert "section.key=value" in done.stdout
