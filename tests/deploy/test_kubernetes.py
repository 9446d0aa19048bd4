"""deploy/kuberay against the APIs' fields and our rules; each rule is seen to speak."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from raysynth.config.files import load_config
from tests.deploy.kubernetes import faults
from tests.deploy.pins import ROOT

FILES = sorted((ROOT / "deploy/kuberay").glob("*.yaml"))


def read() -> list[dict[str, Any]]:
    """All objects; each by itself, though files repeat parts by anchors."""
    texts = [file.read_text() for file in FILES]
    found = [each for text in texts for each in yaml.safe_load_all(text)]
    return [yaml.safe_load(yaml.dump(each, Dumper=_Plain)) for each in found]


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def test_nothing_is_wrong():
    assert faults(read()) == []


def test_the_configuration_of_the_job_is_one():
    (text,) = (each["data"]["run.yaml"] for each in read() if each["kind"] == "ConfigMap")
    settings = yaml.safe_load(text)
    assert settings["resources"]["autoscales"] is True
    given = [
        f"{name}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"
        for name, value in settings.items()
    ]
    config = load_config(None, given)
    gpus = [
        group
        for group in of(read(), "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        if group["groupName"] == "gpu"
    ]
    most = gpus[0]["maxReplicas"]
    assert all(one.of("GPU")[0] <= most for one in config.asked)


def of(documents: list[dict[str, Any]], kind: str) -> Any:
    return next(each for each in documents if each["kind"] == kind)


def cluster(documents: list[dict[str, Any]]) -> Any:
    return of(documents, "RayCluster")["spec"]


def pod(documents: list[dict[str, Any]], group: int = 0) -> Any:
    return cluster(documents)["workerGroupSpecs"][group]["template"]["spec"]


def container(documents: list[dict[str, Any]]) -> Any:
    return pod(documents)["containers"][0]


def job(documents: list[dict[str, Any]]) -> Any:
    return of(documents, "RayJob")


HARM = [
    (lambda d: cluster(d).update(enableInTreeAutoscalling=True), r"Autoscalling: no such field"),
    (lambda d: cluster(d).update(rayVersion=2.6), r"rayVersion: 2\.6 is no str"),
    (lambda d: cluster(d).update(rayVersion="2.59.0"), "rayVersion 2.59.0: constraints.txt has"),
    (lambda d: cluster(d).update(authOptions={"mode": "disabled"}), "no token of a Secret"),
    (lambda d: cluster(d)["headGroupSpec"].update(rayStartParams={}), "the head takes work"),
    (lambda d: cluster(d)["headGroupSpec"].pop("template"), "template: missing"),
    (
        lambda d: cluster(d)["gcsFaultToleranceOptions"].update(redisPassword={"value": "x"}),
        "its value is written down",
    ),
    (lambda d: cluster(d)["autoscalerOptions"].pop("securityContext"), "autoscaler: may run as"),
    (lambda d: cluster(d)["workerGroupSpecs"].pop(0), "with and without nvidia.com/gpu"),
    (lambda d: cluster(d)["workerGroupSpecs"][0].update(minReplicas=1), "does not grow from zero"),
    (lambda d: container(d).update(image="raysynth:latest"), "no tag and digest"),
    (lambda d: container(d)["resources"]["limits"].pop("memory"), "no limit of memory"),
    (lambda d: container(d)["resources"]["limits"].update({"gpu": 1}), "resource 'gpu' is none"),
    (lambda d: container(d)["resources"]["requests"].pop("nvidia.com/gpu"), "limit differ"),
    (lambda d: container(d)["resources"]["limits"].update(memory="28 GB"), "is no quantity"),
    (lambda d: container(d)["securityContext"].pop("capabilities"), "keeps capabilities"),
    (
        lambda d: container(d)["securityContext"].update(allowPrivilegeEscalation=True),
        "may gain privileges",
    ),
    (lambda d: pod(d)["securityContext"].update(runAsUser=0), "may run as root"),
    (
        lambda d: container(d).update(env=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]),
        "the value of AWS_SECRET_ACCESS_KEY",
    ),
    (
        lambda d: of(d, "NetworkPolicy")["spec"]["ingress"].append({"ports": [{"port": 22}]}),
        "ingress: from everywhere",
    ),
    (
        lambda d: of(d, "NetworkPolicy")["spec"]["ingress"][0].update(
            {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}
        ),
        "ingress: open to 0.0.0.0/0",
    ),
    (
        lambda d: of(d, "NetworkPolicy")["spec"]["egress"][-1]["to"][0]["ipBlock"].pop("except"),
        "metadata too",
    ),
    (lambda d: job(d)["spec"].update(shutdownAfterJobFinishes=False), "keeps its quota"),
    (lambda d: job(d)["spec"].update(submissionMode="k8s"), "'k8s' is none of K8sJobMode"),
    (lambda d: job(d)["metadata"].update(annotations={}), "Kueue takes elastic jobs alone"),
    (
        lambda d: job(d)["metadata"].update(labels={"kueue.x-k8s.io/queue-name": "other"}),
        "no queue other",
    ),
    (lambda d: of(d, "LocalQueue")["spec"].update(clusterQueue="x"), "queue x: there is none"),
    (
        lambda d: of(d, "ClusterQueue")["spec"]["resourceGroups"][0]["coveredResources"].pop(),
        "not the resources that the group covers",
    ),
    (lambda d: of(d, "ClusterQueue").update(apiVersion="kueue.x-k8s.io/v1beta9"), "no such kind"),
]


@pytest.mark.parametrize(("harm", "said"), HARM)
def test_what_is_wrong_is_said(harm, said):
    documents = read()
    harm(documents)
    found = "\n".join(faults(documents))
    assert re.search(said, found), found
