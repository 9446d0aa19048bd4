"""cluster.yaml: Ray's own offline validation, and what that lets pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError

ROOT = Path(__file__).parents[2]
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


def test_nodes_take_no_role_of_rays_and_no_group_of_rays(nodes):
    """Ray's own role has all of EC2 and S3; its own group takes SSH from everywhere."""
    for name, node in nodes.items():
        config = node["node_config"]
        assert config["IamInstanceProfile"]["Name"].startswith("raysynth-"), name
        assert config["SecurityGroupIds"], name
        assert config["MetadataOptions"]["HttpTokens"] == "required", name
        assert all(each["Ebs"]["Encrypted"] for each in config["BlockDeviceMappings"]), name


def test_the_setup_installs_what_storage_needs_in_locked_versions(cluster):
    (command,) = cluster["setup_commands"]
    assert "-c ~/raysynth/constraints.txt" in command and "raysynth[s3]" in command
    pins = _pins("constraints.txt")
    assert pins["fsspec"] == pins["s3fs"]
    assert int(pins["python-dateutil"].split(".")[0]) < 3  # botocore's bound


def test_lock_and_constraints_name_the_same_versions():
    """torch's build is its index's choice; tzdata is pandas' on Windows."""
    pins, locked = _pins("constraints.txt"), _pins("requirements.lock")
    assert locked.items() <= pins.items()
    assert pins.keys() - locked.keys() <= {"torch", "tzdata"}


def test_the_lock_has_a_hash_for_every_version_and_nothing_of_a_machine():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert re.fullmatch(r"\S+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
        assert line.endswith("\\") == following.startswith("    --hash")


def _pins(file: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / file).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}
