"""cluster.yaml: Ray's own offline validation, and what that lets pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError

ROOT = Path(__file__).parent.parent
RESOURCES = {"CPU", "GPU", "memory", "object_store_memory"}


@pytest.fixture(scope="module")
def cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def nodes(cluster: dict) -> dict:
    return cluster["available_node_types"]


def test_ray_accepts_it(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


def test_ray_refuses_an_unknown_key(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError, match="wrokers"):
        validate_config(prepare_config({**cluster, "wrokers": 1}))


def test_resource_names_are_ones_ray_schedules_on(nodes):
    for name, node in nodes.items():
        assert set(node["resources"]) <= RESOURCES, name


def test_head_takes_no_work(cluster, nodes):
    assert nodes[cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_gpu_workers_scale_from_zero_on_spot(nodes):
    gpu = [node for node in nodes.values() if node["resources"].get("GPU")]
    assert gpu
    for node in gpu:
        assert node["min_workers"] == 0 < node["max_workers"]
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_limits_hold_what_is_asked(cluster, nodes):
    workers = [node for name, node in nodes.items() if name != cluster["head_node_type"]]
    assert cluster["max_workers"] >= sum(node["min_workers"] for node in workers)
    assert all(node["max_workers"] >= node["min_workers"] for node in workers)


def test_image_and_lock_name_the_same_ray():
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    image = yaml.safe_load((ROOT / "cluster.yaml").read_text())["docker"]["image"]
    assert pinned
    assert image.startswith(f"rayproject/ray:{pinned[1]}-py311")


def test_every_node_authenticates(cluster):
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [line for line in cluster[kind] if "ray start" in line]
        assert starts and all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "~/.ray/auth_token" in cluster["file_mounts"]
