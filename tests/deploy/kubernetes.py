"""What the API lets pass in deploy/kuberay: images, limits, users, secrets, open ports, queues."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.deploy.fields import strangers
from tests.deploy.machines import DIGEST, WIDEST
from tests.deploy.pins import pins

GPU = "nvidia.com/gpu"
RESOURCES = {"cpu", "memory", "ephemeral-storage", GPU}
"""Names under which Kubernetes and NVIDIA's plugin count what these pods take."""
LIMITED = ("cpu", "memory")
SECRET = ("KEY", "TOKEN", "PASSWORD", "SECRET")
"""In the name of a variable whose value belongs into a Secret."""

Document = Mapping[str, Any]


def faults(documents: Sequence[Document]) -> list[str]:
    """All that is wrong with objects that are applied together."""
    found = [sentence for each in documents for sentence in strangers(each)]
    if found:
        return found  # what follows reads fields by name
    for document in documents:
        for cluster in clusters(document):
            found += [*ray(cluster), *growth(cluster)]
        for pod in pods(document):
            found += [f"{document['metadata']['name']}: {each}" for each in hardened(pod)]
        if document["kind"] == "NetworkPolicy":
            found += open_ports(document["spec"])
    return found + list(queued(documents))


def clusters(document: Document) -> Iterator[Document]:
    """The Ray cluster that an object is, or makes."""
    if document["kind"] == "RayCluster":
        yield document["spec"]
    if document["kind"] == "RayJob":
        yield document["spec"]["rayClusterSpec"]


def pods(document: Document) -> Iterator[Document]:
    """The pods that an object makes."""
    for cluster in clusters(document):
        yield cluster["headGroupSpec"]["template"]["spec"]
        yield from (group["template"]["spec"] for group in cluster["workerGroupSpecs"])
    if "submitterPodTemplate" in document.get("spec", {}):
        yield document["spec"]["submitterPodTemplate"]["spec"]


def ray(cluster: Document) -> Iterator[str]:
    """The pinned Ray, its token, a head without work, Redis' password by reference."""
    if cluster.get("rayVersion") != pins()["ray"]:
        yield f"rayVersion {cluster.get('rayVersion')}: constraints.txt has {pins()['ray']}"
    auth = cluster.get("authOptions", {})
    if auth.get("mode") != "token" or not auth.get("secretName"):
        yield "authOptions: no token of a Secret"
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield "the head takes work (rayStartParams.num-cpus)"
    password = cluster.get("gcsFaultToleranceOptions", {}).get("redisPassword")
    if password is not None and "valueFrom" not in password:
        yield "redisPassword: its value is written down"


def growth(cluster: Document) -> Iterator[str]:
    """Workers from zero, as pods wait for them; an autoscaler that may do no more than it does."""
    if cluster.get("enableInTreeAutoscaling") is not True:
        yield "enableInTreeAutoscaling: the cluster does not grow"
    context = cluster.get("autoscalerOptions", {}).get("securityContext", {})
    yield from (f"autoscaler: {each}" for each in _exposed({**POD_USER, **context}))
    groups = cluster["workerGroupSpecs"]
    for group in groups:
        if not group["minReplicas"] == group.get("replicas", 0) == 0 < group["maxReplicas"]:
            yield f"{group['groupName']}: does not grow from zero"
    limits = [_limits(group["template"]["spec"]["containers"][0]) for group in groups]
    if not any(GPU in each for each in limits) or all(GPU in each for each in limits):
        yield f"workers with and without {GPU} are needed"


POD_USER = {"runAsUser": 1000}
"""The autoscaler's container is the head pod's, whose user it has."""


def hardened(pod: Document) -> Iterator[str]:
    """Nobody's root, by digest, with requests and limits, secrets by reference."""
    for container in pod["containers"]:
        named = container["name"]
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        yield from (f"{named}: {each}" for each in _exposed(context))
        if not DIGEST.fullmatch(container["image"]):
            yield f"{named}: image {container['image']}: no tag and digest"
        if f"ray-{pins()['ray']}" not in container["image"]:
            yield f"{named}: image {container['image']}: not for Ray {pins()['ray']}"
        yield from (f"{named}: {each}" for each in _unbounded(container))
        for variable in container.get("env", ()):
            if "value" in variable and any(word in variable["name"].upper() for word in SECRET):
                yield f"{named}: the value of {variable['name']} is written down"


def _exposed(context: Document) -> Iterator[str]:
    """What the restricted profile of Kubernetes' Pod Security Standards refuses."""
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser", 0):
        yield "may run as root"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may gain privileges"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"


def _unbounded(container: Document) -> Iterator[str]:
    requests, limits = container.get("resources", {}).get("requests", {}), _limits(container)
    for name in sorted({*requests, *limits} - RESOURCES):
        yield f"resource {name!r} is none of {', '.join(sorted(RESOURCES))}"
    for name in LIMITED:
        if name not in requests or name not in limits:
            yield f"no request or no limit of {name}"
    if requests.get(GPU) != limits.get(GPU):
        yield f"{GPU}: request and limit differ"


def _limits(container: Document) -> Document:
    found: Document = container.get("resources", {}).get("limits", {})
    return found


def open_ports(policy: Document) -> Iterator[str]:
    """Who else than named pods reaches Ray, and whether Ray reaches the machine's credentials."""
    for rule in policy.get("ingress", ()):
        if not rule.get("from"):
            yield "ingress: from everywhere"
        for peer in rule.get("from", ()):
            if not peer or any(each == {} for each in peer.values()):
                yield "ingress: from everywhere"
            block = peer.get("ipBlock", {}).get("cidr")
            if block and ipaddress.ip_network(block).prefixlen < WIDEST:
                yield f"ingress: open to {block}"
    for rule in policy.get("egress", ()):
        for peer in rule.get("to", ()):
            block = peer.get("ipBlock", {})
            if block and not any("169.254" in each for each in block.get("except", ())):
                yield f"egress to {block['cidr']}: the machine's metadata too"
    if {*policy.get("policyTypes", ())} != {"Ingress", "Egress"}:
        yield "policyTypes: one direction is open"


def queued(documents: Sequence[Document]) -> Iterator[str]:
    """What Kueue's webhooks refuse, and queues that lead nowhere."""
    named = {
        kind: _of(documents, kind) for kind in ("LocalQueue", "ClusterQueue", "ResourceFlavor")
    }
    for queue in named["ClusterQueue"].values():
        for group in queue["spec"]["resourceGroups"]:
            for flavor in group["flavors"]:
                if flavor["name"] not in named["ResourceFlavor"]:
                    yield f"flavor {flavor['name']}: there is none"
                if [each["name"] for each in flavor["resources"]] != group["coveredResources"]:
                    yield f"flavor {flavor['name']}: not the resources that the group covers"
    for queue in named["LocalQueue"].values():
        if queue["spec"]["clusterQueue"] not in named["ClusterQueue"]:
            yield f"queue {queue['spec']['clusterQueue']}: there is none"
    for job in _of(documents, "RayJob").values():
        queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
        if queue not in named["LocalQueue"]:
            yield f"{job['metadata']['name']}: no queue {queue}"
        if job["spec"].get("shutdownAfterJobFinishes") is not True:
            yield "shutdownAfterJobFinishes: a cluster that stays keeps its quota"
        elastic = job["metadata"].get("annotations", {}).get("kueue.x-k8s.io/elastic-job")
        if job["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling") and elastic != "true":
            yield "enableInTreeAutoscaling: Kueue takes elastic jobs alone"


def _of(documents: Sequence[Document], kind: str) -> dict[str, Document]:
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}
