"""cluster.yaml and deploy/gcp.yaml: what Ray validates, what it lets pass, and that both speak."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.deploy.machines import faults, too_broad, world_open
from tests.deploy.pins import ROOT, pins

AWS, GCP = "cluster.yaml", "deploy/gcp.yaml"


def read(file: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / file).read_text())


@pytest.mark.parametrize("file", [AWS, GCP])
def test_nothing_is_wrong(file):
    assert faults(read(file)) == []


def node(cluster: dict[str, Any], name: str) -> dict[str, Any]:
    return cluster["available_node_types"][name]


def of(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets a key of a node type's machine."""
    return lambda cluster: node(cluster, name)["node_config"].update({key: value})


BOTH = [
    (lambda c: c.update(wrokers=1), "Ray refuses it.*wrokers"),
    (lambda c: node(c, "gpu_worker").update(resources={"CPU": 8, "gpu": 1}), "resource 'gpu'"),
    (lambda c: node(c, "head").update(resources={"CPU": 4}), "the head takes work"),
    (lambda c: node(c, "cpu_worker").update(min_workers=1), "does not grow from zero"),
    (lambda c: c["docker"].update(image="rayproject/ray:latest"), "no tag and digest"),
    (lambda c: c["docker"].update(image="rayproject/ray:2.59.0-py311-gpu@sha256:EDIT"), "not Ray"),
    (lambda c: c["provider"].pop("use_internal_ips"), "public addresses"),
    (lambda c: c["file_mounts"].pop("~/.ray/auth_token"), "the token goes to no node"),
    (lambda c: c.update(worker_start_ray_commands=["ray start"]), "without RAY_AUTH_MODE"),
    (
        lambda c: c.update(
            head_start_ray_commands=["RAY_AUTH_MODE=token ray start --dashboard-host=0.0.0.0"]
        ),
        "the dashboard listens at 0.0.0.0",
    ),
]
ON_AWS = [
    (of("head", "IamInstanceProfile", {"Name": "ray-autoscaler-v1"}), "role ray-autoscaler-v1"),
    (of("gpu_worker", "IamInstanceProfile", {"Name": "raysynth-head"}), "not raysynth-worker"),
    (of("head", "SecurityGroupIds", []), "no subnet or security group"),
    (of("head", "NetworkInterfaces", [{"AssociatePublicIpAddress": True}]), "a public address"),
    (of("cpu_worker", "MetadataOptions", {"HttpTokens": "optional"}), "IMDSv1 is open"),
    (of("cpu_worker", "BlockDeviceMappings", [{"Ebs": {"VolumeSize": 9}}]), "not encrypted"),
    (of("gpu_worker", "InstanceMarketOptions", {}), "not a spot machine"),
    (lambda c: c["provider"].update(security_group={"GroupName": "x"}), "SSH from everywhere"),
]
ON_GCP = [
    (of("head", "serviceAccounts", []), "role of Ray"),
    (of("head", "networkInterfaces", [{"accessConfigs": []}]), "a public address"),
    (of("gpu_worker", "scheduling", {}), "not a spot machine"),
    (of("cpu_worker", "shieldedInstanceConfig", {"enableVtpm": True}), "not shielded"),
]


@pytest.mark.parametrize(
    ("file", "harm", "said"),
    [(file, *each) for file in (AWS, GCP) for each in BOTH]
    + [(AWS, *each) for each in ON_AWS]
    + [(GCP, *each) for each in ON_GCP],
)
def test_what_is_wrong_is_said(file, harm, said):
    cluster = copy.deepcopy(read(file))
    harm(cluster)
    found = "\n".join(faults(cluster))
    assert re.search(said, found), found


def test_the_setup_installs_what_storage_needs_in_locked_versions():
    (aws,), (gcp,) = read(AWS)["setup_commands"], read(GCP)["setup_commands"]
    assert "-c ~/raysynth/constraints.txt" in aws and "raysynth[s3]" in aws
    assert "-c ~/raysynth/constraints.txt" in gcp and "raysynth[gcs]" in gcp
    assert pins()["fsspec"] == pins()["s3fs"]
    assert int(pins()["python-dateutil"].split(".")[0]) < 3  # botocore's bound


@pytest.mark.parametrize("name", ["head-policy", "runs-policy"])
def test_a_role_may_do_what_its_node_does_and_no_more(name):
    assert list(too_broad(read(f"deploy/aws/{name}.json"))) == []


@pytest.mark.parametrize(
    ("sid", "change", "said"),
    [
        ("StartThisClustersInstances", {"Action": "ec2:*"}, "all actions of a kind"),
        ("EndAndRenameThisClustersInstances", {"Resource": "*"}, "on everything"),
        ("EndAndRenameThisClustersInstances", {"Condition": None}, "without a condition"),
        ("GiveThemTheWorkersRole", {"Resource": "arn:aws:iam::1:role/admin"}, "another role"),
    ],
)
def test_a_role_that_may_do_more_is_said(sid, change, said):
    policy = read("deploy/aws/head-policy.json")
    (statement,) = (each for each in policy["Statement"] if each["Sid"] == sid)
    statement.update({key: value for key, value in change.items() if value is not None})
    for key in (key for key, value in change.items() if value is None):
        del statement[key]
    assert any(said in sentence for sentence in too_broad(policy))


def test_the_roles_tag_is_the_clusters_name():
    """What the head may start and end is told by the tag that Ray gives it."""
    from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME

    policy, tag = (ROOT / "deploy/aws/head-policy.json").read_text(), TAG_RAY_CLUSTER_NAME
    name = read(AWS)["cluster_name"]
    for kind in ("aws:RequestTag", "aws:ResourceTag"):
        assert f'"{kind}/{tag}": "{name}"' in policy


def test_ssh_is_for_a_named_range():
    rules = json.loads((ROOT / "deploy/aws/ingress.json").read_text())
    assert list(world_open(rules)) == []
    rules[0]["IpRanges"][0]["CidrIp"] = "0.0.0.0/0"
    assert list(world_open(rules)) == ["port 22: open to 0.0.0.0/0"]
    rules[0]["Ipv6Ranges"] = [{"CidrIpv6": "::/0"}]
    assert "port 22: open to ::/0" in list(world_open(rules))
