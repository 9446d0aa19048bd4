"""Several YAML files, one over the other, and keys for a shell's completion."""

from __future__ import annotations

import pytest

from raysynth.config.completion import keys_beginning
from raysynth.config.files import load_config, split_arguments
from raysynth.errors import ConfigError


@pytest.fixture
def files(tmp_path):
    first = "name: a\ndataset: {severity: 0.9, shots: 4}\nsearch: {trials: 3}\n"
    (tmp_path / "a.yaml").write_text(first)
    (tmp_path / "b.yaml").write_text("dataset: {severity: 0.8}\nsearch: {trials: 5}\n")
    return [str(tmp_path / name) for name in ("a.yaml", "b.yaml")]


def test_later_files_win_key_by_key_and_settings_over_all(files):
    config = load_config(files, ["search.trials=7"])
    assert (config.name, config.dataset.severity, config.dataset.shots) == ("a", 0.8, 4)
    assert config.search.trials == 7
    assert load_config(files[::-1]).dataset.severity == 0.9
    assert load_config(files[0]) == load_config([files[0]])


def test_errors_name_the_file_that_gave_the_value(files, tmp_path):
    (tmp_path / "b.yaml").write_text("dataset: {severity: 7, sharts: 2}\n")
    with pytest.raises(ConfigError) as refused:
        load_config(files)
    told = str(refused.value).splitlines()
    assert all("(in " in line and "b.yaml)" in line for line in told if "severity" in line)
    assert any("unknown key (in " in line and "Did you mean `shots`" in line for line in told)


def test_files_come_before_settings():
    assert split_arguments(["a.yaml", "b.yaml", "x.y=1"]) == (["a.yaml", "b.yaml"], ["x.y=1"])
    with pytest.raises(ConfigError, match="files come before settings"):
        load_config(*split_arguments(["name=x", "b.yaml"]))


def test_keys_and_named_parts_are_completed():
    assert "dataset.severity=" in keys_beginning("dataset.sev")
    assert "resources.workers=" in keys_beginning("resources.")
    assert keys_beginning("generator=sh") == ["generator=shared"]
    assert "dataset.name=tree" in keys_beginning("dataset.name=")
    assert keys_beginning("nothing.of") == []
