"""Ray's own folders: two nodes of one machine that share one take a job's package from each other.

Ray 2.60 unpacks an uploaded package anew on every node that first needs it, over what is there: a
driver that was started in it has no working directory any more, and what asks for that fails
(findings/ray_second_node_takes_the_working_directory.sh).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from raysynth.cluster.note import machine
from raysynth.config.config import Config
from raysynth.doctor.check import DRIVER, WARN, Check, Finding, Scene, places


def look(config: Config, visit: str) -> dict[str, Any] | None:
    """The machine, and where Ray keeps the node's files; None: outside of a cluster."""
    import ray

    if not ray.is_initialized():
        return None
    return {"machine": machine(), "folder": ray.get_runtime_context().get_temp_dir()}


def judge(scene: Scene) -> Iterator[Finding]:
    """The nodes that share a folder; where none do, there is nothing to say."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place, facts in scene.of("folders").items():
        if place != DRIVER:
            alike[facts["machine"], facts["folder"]].append(place)
    for (_, folder), nodes in alike.items():
        if len(nodes) > 1:
            yield Finding(
                WARN,
                f"{places(nodes)}: one machine, and one folder {folder} of Ray's: a node that "
                "joins or first works while a job runs replaces the package in which its driver "
                "was started, and the job fails",
                "`ray start --temp-dir=/another/folder` for each node of a machine",
            )


PART = Check(45, judge, look)
