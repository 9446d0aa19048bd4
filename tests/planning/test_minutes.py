"""Minutes on CPUs: the quickstart's are those it took, others grow with their work."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.config.files import load_config
from raysynth.planning import minutes
from raysynth.planning.plan import plan_run

BIG = ["base.name=someone/model", "base.clip=someone/clip", "classifier.backbone=clip"]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(minutes, "GPU_FILES", ())
    monkeypatch.setattr(minutes, "local_cpus", lambda: 2)


def test_the_quickstarts_work_is_what_the_plan_counts():
    hours = plan_run(load_config()).gpu_hours
    for name, work in minutes.WORK.items():
        assert hours[name] * 60e12 * 3600 == pytest.approx(work, rel=1e-3)


@pytest.mark.parametrize("fast", [True, False])
def test_the_quickstart_takes_what_it_took(monkeypatch, fast):
    monkeypatch.setattr(minutes, "_has_bfloat16", lambda: fast)
    found = plan_run(load_config()).minutes
    seconds = sum(minutes.CPU_SECONDS.values())
    assert found.total == pytest.approx(seconds / 2 / 60, rel=0.01) if fast else found.total > 8
    assert "quickstart" in found.basis and f"with{'' if fast else 'out'} bfloat16" in found.basis


def test_more_work_takes_longer_and_other_models_are_timed_here(monkeypatch):
    monkeypatch.setattr(minutes, "_products", lambda: 50e9)
    small = plan_run(load_config(None, BIG)).minutes
    large = plan_run(load_config(None, [*BIG, "synthesis.images_per_group=1600"])).minutes
    assert large.each["generation"] > 1.9 * small.each["generation"]
    assert large.each["fine-tuning"] == small.each["fine-tuning"]
    assert "50 GFLOP/s" in small.basis


def test_a_gpus_run_and_a_clusters_have_none(monkeypatch):
    cluster = load_config(None, ["resources.address=10.0.0.5:6379"])
    assert plan_run(cluster).minutes is None
    asked = ["resources.gpus_per_worker=1", "search.gpus_per_trial=1"]
    assert plan_run(load_config(None, asked)).minutes is None
    assert "GPU-hours" in str(plan_run(cluster)) and "GPU" not in str(plan_run(load_config()))


def test_a_cores_rate_is_a_rate():
    assert 1e8 < minutes._products() < 1e13 and np.isfinite(minutes._products())


@pytest.mark.parametrize(
    ("given", "said"),
    [(0.4, "less than 1 min"), (7.2, "about 7 min"), (300, "about 5 h"), (9000, "about 6 days")],
)
def test_minutes_are_said_as_a_person_says_them(given, said):
    assert minutes.in_words(given) == said


def test_work_of_which_nothing_was_measured_is_timed_here(monkeypatch):
    monkeypatch.setattr(minutes, "_products", lambda: 50e9)
    known = plan_run(load_config(None, ["generator=shared"])).minutes
    found = plan_run(load_config(None, ["generator=shared", "audit.method=guda"])).minutes
    assert found.each.keys() > known.each.keys() and found.total > known.total
