"""The cluster: somebody answers at its address, every node is heard, and it has what is asked."""

from __future__ import annotations

from collections.abc import Iterator

from raysynth.cluster.capacity import address_of, check_before_ray, check_cluster, local_cpus
from raysynth.doctor.check import FAIL, OK, Check, Failed, Finding, Scene, together


def judge(scene: Scene) -> Iterator[Finding]:
    """The cluster's size, beside what the stages ask of it at once."""
    if scene.joined is not None:
        failed = scene.joined
        yield Finding(FAIL, failed.text, failed.fix, failed.passing)
        return
    yield from together(scene.silent or {})
    there: dict[str, float] = {}
    for node in scene.nodes:
        for kind in ("CPU", "GPU"):
            there[kind] = there.get(kind, 0.0) + node.resources.get(kind, 0.0)
    try:
        if scene.local:
            check_before_ray(scene.config)
        else:
            check_cluster(scene.config, there)
    except Exception as error:
        refused = Failed.of(error)
        yield Finding(FAIL, refused.text, refused.fix, refused.passing)
        return
    if scene.local:
        yield Finding(OK, f"none: a run has a Ray of its own on this machine's {local_cpus()} CPUs")
        return
    wide = ", ".join(_asked(scene, kind) for kind in ("CPU", "GPU"))
    grows = "; the cluster grows on demand" if scene.config.resources.autoscales else ""
    yield Finding(
        OK,
        f"{address_of(scene.config.resources)}: {len(scene.nodes):,} nodes, {there['CPU']:g} CPUs, "
        f"{there['GPU']:g} GPUs; the widest stages ask for {wide}{grows}",
    )


def _asked(scene: Scene, kind: str) -> str:
    most = max((one.of(kind)[0] for one in scene.config.asked), default=0.0)
    return f"{most:g} {kind}s"


PART = Check(40, judge)
