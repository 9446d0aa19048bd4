"""What actor pools and the tasks around them ask for, and that they give it back."""

import logging
import sys
import threading
import time

import pyarrow as pa
import pytest
import ray

from raysynth.cluster.capacity import logical_cpus
from raysynth.cluster.workers import (
    RAYS_REPORTS,
    RESERVED_CPUS,
    actor_pool,
    busy_task_cpus,
    run_pool,
)
from raysynth.config.files import load_config
from raysynth.errors import DamagedError, ModelError
from raysynth.pipeline import run_pipeline
from tests.test_pipeline import miniature

LOGICAL = logical_cpus()


@pytest.mark.parametrize(
    ("address", "cpus", "asked"),
    [("local", LOGICAL, 2.0), ("local", LOGICAL - 1, 1.0), ("10.0.0.1:6379", LOGICAL, 1.0)],
)
def test_what_keeps_a_core_busy_asks_for_half_of_a_local_core(monkeypatch, address, cpus, asked):
    """Only where logical CPUs exceed the cores: elsewhere it might not fit beside an actor."""
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": float(cpus)})
    resources = load_config(None, [f"resources.address={address}"]).resources
    assert busy_task_cpus(resources) == asked <= RESERVED_CPUS


class Broken:
    def __call__(self, batch: pa.Table) -> pa.Table:
        raise ModelError("the weights are broken")


def test_a_pool_that_fails_gives_its_cpus_back_while_its_error_is_held(ray_local, monkeypatch):
    # pytest keeps log records, and Ray Data's hold its error.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    resources = load_config(None).resources
    dataset = ray.data.range(4).map_batches(Broken, **actor_pool(resources, 1, calls=2))
    with pytest.raises(ModelError) as held:
        run_pool(dataset, lambda rows: rows.materialize())
    assert type(held.value) is ModelError
    assert str(held.value) == "the weights are broken"
    until = time.monotonic() + 60
    while ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < until, "an actor still holds a CPU"
        time.sleep(0.2)


class Damaged:
    def __call__(self, batch: pa.Table) -> pa.Table:
        raise DamagedError("cut off", "/runs/mini/adapters/0-0")


def test_a_pools_damaged_file_is_known_by_its_path(ray_local):
    dataset = ray.data.range(4).map_batches(Damaged, **actor_pool(load_config(None).resources, 1))
    with pytest.raises(DamagedError) as held:
        run_pool(dataset, lambda rows: rows.materialize())
    assert (str(held.value), held.value.path) == ("cut off", "/runs/mini/adapters/0-0")


def test_ray_reports_the_failures_that_are_not_raysynths():
    class Rows:  # of a Dataset, what run_pool touches
        context = ray.data.DataContext()

    def reported(error: Exception) -> list[bool]:
        """For each of Ray's loggers, whether records with and without the error get through."""
        found = []

        def fail(_: Rows) -> None:
            try:
                raise error
            except Exception:
                for logger in map(logging.getLogger, RAYS_REPORTS):
                    for told in (sys.exc_info(), None):
                        given = (logger.name, logging.ERROR, "", 0, "trace", (), told)
                        found.append(bool(logger.filter(logger.makeRecord(*given))))
                raise

        with pytest.raises(type(error)):
            run_pool(Rows(), fail)
        return found

    assert reported(ModelError("broken weights")) == [False] * 4
    assert reported(KeyError("a bug")) == [True] * 4


def test_stages_that_have_no_use_for_a_gpu_ask_for_none(ray_local, tmp_path):
    """On a Ray that has none and says that it grows, what asks for one would wait for ever."""
    assert "GPU" not in ray_local.cluster_resources()
    asked = ("resources.gpus_per_worker=1", "search.gpus_per_trial=1", "resources.autoscales=true")
    config = miniature(tmp_path, *asked)
    made = []
    run = threading.Thread(
        target=lambda: made.append(run_pipeline(config, until="ingest")), daemon=True
    )
    run.start()
    run.join(120)
    assert made and made[0].manifest()["stages"]["ingest"]["rows"] == 240
    pool = actor_pool(config.resources, actors=8)
    assert pool["num_gpus"] == 1 and pool["compute"].min_size == 1  # the others as nodes arrive
