"""Fields of the Kubernetes objects in deploy/kuberay: names, types and what is required.

Only what those files may use of it; a name that is not here is a misspelling, or has to be looked
up and added. Sources:

- KubeRay v1.6.2: ray-operator/apis/ray/v1/raycluster_types.go, rayjob_types.go
- Kueue v0.19.2 (kueue.x-k8s.io/v1beta2): apis/kueue/v1beta2/*_types.go
- Kubernetes v1.34: core/v1 (PodTemplateSpec and below), networking.k8s.io/v1
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?")
"""resource.Quantity as these files write it."""


@dataclass(frozen=True)
class Object:
    """A mapping of these fields."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()


@dataclass(frozen=True)
class Map:
    """A mapping of any keys to values of one kind."""

    of: Any


@dataclass(frozen=True)
class Each:
    """A list of one kind."""

    of: Any


@dataclass(frozen=True)
class OneOf:
    """One of these words."""

    words: tuple[str, ...]


class Amount:
    """A quantity of a resource, as a number or a text."""


LABELS = Map(str)
META = Object(
    {"name": str, "namespace": str, "labels": LABELS, "annotations": LABELS}, required=("name",)
)
SELECTOR = Object({"matchLabels": LABELS})
KEY = Object({"name": str, "key": str, "optional": bool}, required=("name", "key"))
ENV = Object(
    {"name": str, "value": str, "valueFrom": Object({"secretKeyRef": KEY})}, required=("name",)
)
FROM = Object({"secretRef": Object({"name": str, "optional": bool}, required=("name",))})
RESOURCES = Object({"requests": Map(Amount), "limits": Map(Amount)})
SECCOMP = Object({"type": OneOf(("RuntimeDefault", "Localhost", "Unconfined"))}, ("type",))
CONTEXT = Object(
    {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "allowPrivilegeEscalation": bool,
        "privileged": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": Object({"add": Each(str), "drop": Each(str)}),
        "seccompProfile": SECCOMP,
    }
)
POD_CONTEXT = Object(
    {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "fsGroup": int,
        "seccompProfile": SECCOMP,
    }
)
CONTAINER = Object(
    {
        "name": str,
        "image": str,
        "imagePullPolicy": OneOf(("Always", "IfNotPresent", "Never")),
        "securityContext": CONTEXT,
        "env": Each(ENV),
        "envFrom": Each(FROM),
        "ports": Each(Object({"name": str, "containerPort": int}, required=("containerPort",))),
        "resources": RESOURCES,
        "volumeMounts": Each(
            Object({"name": str, "mountPath": str, "readOnly": bool}, ("name", "mountPath"))
        ),
    },
    required=("name", "image"),
)
TOLERATION = Object(
    {
        "key": str,
        "operator": OneOf(("Exists", "Equal")),
        "value": str,
        "effect": OneOf(("NoSchedule", "PreferNoSchedule", "NoExecute")),
    }
)
VOLUME = Object(
    {
        "name": str,
        "configMap": Object({"name": str}, required=("name",)),
        "emptyDir": Object({"medium": str, "sizeLimit": Amount}),
    },
    required=("name",),
)
POD = Object(
    {
        "serviceAccountName": str,
        "automountServiceAccountToken": bool,
        "restartPolicy": OneOf(("Always", "OnFailure", "Never")),
        "securityContext": POD_CONTEXT,
        "nodeSelector": LABELS,
        "tolerations": Each(TOLERATION),
        "containers": Each(CONTAINER),
        "volumes": Each(VOLUME),
    },
    required=("containers",),
)
TEMPLATE = Object({"metadata": Object({"labels": LABELS}), "spec": POD}, required=("spec",))
AUTOSCALER = Object(
    {
        "version": OneOf(("v1", "v2")),
        "upscalingMode": OneOf(("Default", "Aggressive", "Conservative")),
        "idleTimeoutSeconds": int,
        "resources": RESOURCES,
        "securityContext": CONTEXT,
        "env": Each(ENV),
    }
)
CREDENTIAL = Object({"value": str, "valueFrom": Object({"secretKeyRef": KEY})})
CLUSTER = Object(
    {
        "rayVersion": str,
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": AUTOSCALER,
        "authOptions": Object({"mode": OneOf(("token", "disabled")), "secretName": str}),
        "gcsFaultToleranceOptions": Object(
            {
                "redisAddress": str,
                "redisUsername": CREDENTIAL,
                "redisPassword": CREDENTIAL,
                "externalStorageNamespace": str,
            },
            required=("redisAddress",),
        ),
        "headGroupSpec": Object(
            {"rayStartParams": LABELS, "template": TEMPLATE, "serviceType": str},
            required=("rayStartParams", "template"),
        ),
        "workerGroupSpecs": Each(
            Object(
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "idleTimeoutSeconds": int,
                    "numOfHosts": int,
                    "rayStartParams": LABELS,
                    "template": TEMPLATE,
                },
                required=("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            )
        ),
    },
    required=("headGroupSpec",),
)
JOB = Object(
    {
        "entrypoint": str,
        "runtimeEnvYAML": str,
        "submissionMode": OneOf(("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")),
        "submitterPodTemplate": TEMPLATE,
        "submitterConfig": Object({"backoffLimit": int}),
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "suspend": bool,
        "rayClusterSpec": CLUSTER,
    }
)
PEER = Object(
    {
        "podSelector": SELECTOR,
        "namespaceSelector": SELECTOR,
        "ipBlock": Object({"cidr": str, "except": Each(str)}, required=("cidr",)),
    }
)
PORTS = Each(Object({"protocol": OneOf(("TCP", "UDP", "SCTP")), "port": int}))
POLICY = Object(
    {
        "podSelector": SELECTOR,
        "policyTypes": Each(OneOf(("Ingress", "Egress"))),
        "ingress": Each(Object({"from": Each(PEER), "ports": PORTS})),
        "egress": Each(Object({"to": Each(PEER), "ports": PORTS})),
    },
    required=("podSelector",),
)
QUOTA = Object({"name": str, "nominalQuota": Amount}, required=("name", "nominalQuota"))
QUEUE = Object(
    {
        "namespaceSelector": SELECTOR,
        "queueingStrategy": OneOf(("StrictFIFO", "BestEffortFIFO")),
        "cohortName": str,
        "resourceGroups": Each(
            Object(
                {
                    "coveredResources": Each(str),
                    "flavors": Each(
                        Object({"name": str, "resources": Each(QUOTA)}, ("name", "resources"))
                    ),
                },
                required=("coveredResources", "flavors"),
            )
        ),
    }
)
FLAVOR = Object({"nodeLabels": LABELS, "tolerations": Each(TOLERATION)})


def _top(spec: Object | None, **more: Any) -> Object:
    """An object with its metadata."""
    fields = {"apiVersion": str, "kind": str, "metadata": META, **more}
    fields |= {"spec": spec} if spec is not None else {}
    return Object(fields, required=("apiVersion", "kind", "metadata", *(["spec"] if spec else [])))


KINDS = {
    ("ray.io/v1", "RayCluster"): _top(CLUSTER),
    ("ray.io/v1", "RayJob"): _top(JOB),
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"): _top(FLAVOR),
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"): _top(QUEUE),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): _top(Object({"clusterQueue": str})),
    ("networking.k8s.io/v1", "NetworkPolicy"): _top(POLICY),
    ("v1", "Namespace"): _top(None),
    ("v1", "ServiceAccount"): _top(None, automountServiceAccountToken=bool),
    ("v1", "ConfigMap"): _top(None, data=LABELS),
}
"""(apiVersion, kind) -> fields."""


def strangers(document: Mapping[str, Any]) -> list[str]:
    """A sentence on each field of an object that its API does not know, lacks, or has otherwise."""
    named = (document.get("apiVersion"), document.get("kind"))
    if named not in KINDS:
        return [f"{named[0]} {named[1]}: no such kind"]
    return list(_differing(document, KINDS[named], str(named[1])))


def _differing(value: Any, kind: Any, where: str) -> Iterator[str]:
    if isinstance(kind, Object | Map):
        if not isinstance(value, Mapping):
            yield f"{where}: {value!r} is no mapping"
            return
        known = kind.fields if isinstance(kind, Object) else dict.fromkeys(value, kind.of)
        required = kind.required if isinstance(kind, Object) else ()
        yield from (f"{where}.{key}: no such field" for key in value.keys() - known.keys())
        yield from (f"{where}.{key}: missing" for key in required if key not in value)
        for key in value.keys() & known.keys():
            yield from _differing(value[key], known[key], f"{where}.{key}")
    elif isinstance(kind, Each):
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for number, each in enumerate(value):
            yield from _differing(each, kind.of, f"{where}[{number}]")
    elif isinstance(kind, OneOf):
        if value not in kind.words:
            yield f"{where}: {value!r} is none of {', '.join(kind.words)}"
    elif kind is Amount:
        if isinstance(value, bool) or not QUANTITY.fullmatch(str(value)):
            yield f"{where}: {value!r} is no quantity"
    elif type(value) is not kind:
        yield f"{where}: {value!r} is no {kind.__name__}"
