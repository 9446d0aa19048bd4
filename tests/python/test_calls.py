"""raysynth from Python: configurations of any form, errors raised, nothing imported early."""

from __future__ import annotations

import subprocess
import sys

import pytest

import raysynth
from raysynth.config.files import load_config


def test_import_raysynth_takes_no_library_with_it():
    code = (
        "import sys, raysynth; dir(raysynth);"
        "print([m for m in ('torch', 'ray', 'pandas', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_that_is_offered_is_there():
    for name in raysynth.__all__:
        assert getattr(raysynth, name) is not None
    assert set(raysynth.__all__) <= set(dir(raysynth))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = raysynth.nothing


def test_a_file_a_mapping_and_a_configuration_are_one(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("name: a\nseed: 4\ndataset: {severity: 0.9}\n")
    whole = load_config(str(file))
    assert raysynth.configure(file) == raysynth.configure([file]) == whole
    assert raysynth.configure({"name": "a", "seed": 4, "dataset": {"severity": 0.9}}) == whole
    assert raysynth.configure(whole) == whole
    assert raysynth.configure() == load_config()


def test_settings_and_sections_are_laid_over(tmp_path):
    settings = {"dataset": {"severity": 0.9, "shots": 4}}
    found = raysynth.configure(settings, "seed=5", dataset={"shots": 3}, name="b")
    assert (found.dataset.severity, found.dataset.shots, found.seed, found.name) == (0.9, 3, 5, "b")
    assert settings == {"dataset": {"severity": 0.9, "shots": 4}}


def test_what_a_command_refuses_is_raised(tmp_path):
    with pytest.raises(raysynth.ConfigError, match="Did you mean `severity`"):
        raysynth.run({"dataset": {"severty": 1}})
    with pytest.raises(raysynth.DataError, match="is not a folder"):
        raysynth.plan(dataset={"name": "tree", "path": str(tmp_path / "gone")})
    with pytest.raises(raysynth.ConfigError, match="no such file"):
        raysynth.load(tmp_path / "gone")
    assert issubclass(raysynth.DataError, raysynth.RaysynthError)


def test_plans_and_rehearsals_are_the_commands(tmp_path):
    plan = raysynth.plan(storage_path=str(tmp_path))
    assert "8 adapters" in str(plan) and plan.generators["clustered_dreambooth"].adapters == 8
    assert set(raysynth.rehearse(storage_path=str(tmp_path)).stages.values()) == {"new"}
    assert raysynth.stages_of(generator="auto").count("synthesis") == 1
