"""What Ray's schema lets pass in a `ray up` file, for AWS and Google Cloud; a sentence each."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import ValidationError

from tests.deploy.pins import pins

RESOURCES = {"CPU", "GPU", "memory", "object_store_memory"}
"""Names that Ray schedules on; any other is a custom resource that nothing asks for."""
DIGEST = re.compile(r"\S+:\S+@sha256:(EDIT|[0-9a-f]{64})")
"""A tag for people, a digest for machines; EDIT: yet to be looked up."""
WIDEST = 16
"""Shortest prefix of an address range that may log in: 65,536 addresses."""


def faults(cluster: Mapping[str, Any]) -> list[str]:
    """All that is wrong with a file for `ray up`."""
    checks = (schema, resources, scaling, image, authentication, private, roles, instances)
    return [sentence for check in checks for sentence in check(cluster)]


def schema(cluster: Mapping[str, Any]) -> Iterator[str]:
    """What Ray itself refuses, offline."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(dict(cluster)))
    except (ValidationError, ValueError) as error:
        yield f"Ray refuses it: {str(error).splitlines()[0]}"


def resources(cluster: Mapping[str, Any]) -> Iterator[str]:
    """Names of resources, and a head without work."""
    for name, node in cluster["available_node_types"].items():
        for unknown in sorted(set(node.get("resources", ())) - RESOURCES):
            yield f"{name}: resource {unknown!r} is none of {', '.join(sorted(RESOURCES))}"
    head = cluster["available_node_types"].get(cluster["head_node_type"], {})
    if head.get("resources") != {"CPU": 0}:
        yield f"the head takes work: {head.get('resources')}"


def scaling(cluster: Mapping[str, Any]) -> Iterator[str]:
    """Workers from zero; GPU workers on spot."""
    workers = _workers(cluster)
    if not any(node["resources"].get("GPU") for node in workers.values()):
        yield "no node has a GPU"
    for name, node in workers.items():
        if not 0 == node.get("min_workers") < node.get("max_workers", 0):
            yield f"{name}: does not grow from zero"
        config = node["node_config"]
        spot = config.get("InstanceMarketOptions") == {"MarketType": "spot"}
        spot |= config.get("scheduling", {}).get("provisioningModel") == "SPOT"
        if node["resources"].get("GPU") and not spot:
            yield f"{name}: its GPU is not a spot machine's"
    if cluster["max_workers"] < max(node.get("max_workers", 0) for node in workers.values()):
        yield "max_workers is below that of a node type"


def image(cluster: Mapping[str, Any]) -> Iterator[str]:
    """The pinned Ray, by digest."""
    named = cluster["docker"]["image"]
    if not DIGEST.fullmatch(named):
        yield f"image {named}: no tag and digest"
    if f":{pins()['ray']}-py311" not in named:
        yield f"image {named}: not Ray {pins()['ray']} on Python 3.11"


def authentication(cluster: Mapping[str, Any]) -> Iterator[str]:
    """The token on every node; the dashboard for the head itself alone."""
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [line for line in cluster[kind] if "ray start" in line]
        if not starts or not all("RAY_AUTH_MODE=token" in line for line in starts):
            yield f"{kind}: without RAY_AUTH_MODE=token"
        for line in starts:
            hosts = re.findall(r"--dashboard-host=(\S+)", line)
            if any(host != "127.0.0.1" for host in hosts):
                yield f"{kind}: the dashboard listens at {', '.join(hosts)}"
    if "~/.ray/auth_token" not in cluster["file_mounts"]:
        yield "file_mounts: the token goes to no node"


def private(cluster: Mapping[str, Any]) -> Iterator[str]:
    """No public address, no security group of Ray's, which takes SSH from everywhere."""
    provider = cluster["provider"]
    if provider.get("use_internal_ips") is not True:
        yield "provider.use_internal_ips: nodes are reached at public addresses"
    if "security_group" in provider:
        yield "provider.security_group: Ray adds SSH from everywhere to a group of its own"
    for name, node in cluster["available_node_types"].items():
        config = node["node_config"]
        if provider["type"] == "aws":
            if not config.get("SubnetIds") or not config.get("SecurityGroupIds"):
                yield f"{name}: no subnet or security group of its own"
            if any(
                each.get("AssociatePublicIpAddress") for each in config.get("NetworkInterfaces", ())
            ):
                yield f"{name}: has a public address"
        else:
            interfaces = config.get("networkInterfaces", ())
            if not interfaces or any("accessConfigs" in each for each in interfaces):
                yield f"{name}: has a public address"


def roles(cluster: Mapping[str, Any]) -> Iterator[str]:
    """A role of ours, and the head's for the head alone: others start no machines."""
    for name, node in cluster["available_node_types"].items():
        kind = "head" if name == cluster["head_node_type"] else "worker"
        config = node["node_config"]
        if cluster["provider"]["type"] == "aws":
            role = config.get("IamInstanceProfile", {}).get("Name", "")
        else:
            role = (config.get("serviceAccounts") or [{}])[0].get("email", "").partition("@")[0]
        if role != f"raysynth-{kind}":
            yield f"{name}: role {role or 'of Ray, with all of the cloud'}, not raysynth-{kind}"


def instances(cluster: Mapping[str, Any]) -> Iterator[str]:
    """Encrypted disks and IMDSv2 on AWS; shielded machines on Google Cloud."""
    for name, node in cluster["available_node_types"].items():
        config = node["node_config"]
        if cluster["provider"]["type"] == "aws":
            disks = config.get("BlockDeviceMappings", ())
            if not disks or not all(each["Ebs"].get("Encrypted") is True for each in disks):
                yield f"{name}: a disk is not encrypted"
            if config.get("MetadataOptions", {}).get("HttpTokens") != "required":
                yield f"{name}: IMDSv1 is open (MetadataOptions.HttpTokens: required)"
            continue
        shield = config.get("shieldedInstanceConfig", {})
        wanted = ["enableVtpm", "enableIntegrityMonitoring"]
        wanted += [] if node["resources"].get("GPU") else ["enableSecureBoot"]
        if missing := [key for key in wanted if shield.get(key) is not True]:
            yield f"{name}: not shielded ({', '.join(missing)})"


def world_open(rules: list[Mapping[str, Any]]) -> Iterator[str]:
    """Ranges of addresses that no network of one's own is."""
    for rule in rules:
        ranges = [each["CidrIp"] for each in rule.get("IpRanges", ())]
        ranges += [each["CidrIpv6"] for each in rule.get("Ipv6Ranges", ())]
        for written in ranges:
            if ipaddress.ip_network(written).prefixlen < WIDEST:
                yield f"port {rule.get('FromPort', 'any')}: open to {written}"


def too_broad(policy: Mapping[str, Any]) -> Iterator[str]:
    """What a role may do beyond one cluster and one bucket."""
    for statement in policy["Statement"]:
        actions, where = _listed(statement["Action"]), _listed(statement["Resource"])
        named = statement.get("Sid", "?")
        if statement["Effect"] == "Allow" and any("*" in action for action in actions):
            yield f"{named}: all actions of a kind ({', '.join(actions)})"
        looks = all(re.fullmatch(r"ec2:Describe\w+", action) for action in actions)
        if "*" in where and not (looks and "Condition" in statement):
            yield f"{named}: on everything"
        changes = {"ec2:TerminateInstances", "iam:PassRole", "ec2:CreateTags"} & set(actions)
        if changes and "Condition" not in statement:
            yield f"{named}: {', '.join(sorted(changes))} without a condition"
        if "iam:PassRole" in actions and any(
            not each.endswith("/raysynth-worker") for each in where
        ):
            yield f"{named}: passes another role than the workers'"


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _workers(cluster: Mapping[str, Any]) -> dict[str, Any]:
    types = cluster["available_node_types"]
    return {name: node for name, node in types.items() if name != cluster["head_node_type"]}
