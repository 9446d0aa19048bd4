"""Words of commands with arguments and settings."""

from __future__ import annotations

from raysynth.config.command import split_words


def test_settings_have_a_sign_of_equality_and_paths_may_have_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    words = ["loras", "synthesis.steps=3", "/data/seed=1/x", "s3://b/k=v", "a=b", "base.name=o/m"]
    assert split_words(words) == (
        ["loras", "/data/seed=1/x", "s3://b/k=v", "a=b"],
        ["synthesis.steps=3", "base.name=o/m"],
    )
