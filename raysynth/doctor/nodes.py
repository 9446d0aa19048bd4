"""Looking at every node of a cluster: one task pinned on each, and the driver itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from raysynth.cluster.capacity import address_of, check_reachable
from raysynth.cluster.local import held_signals, join
from raysynth.cluster.session import ENVIRONMENT
from raysynth.config.config import Config
from raysynth.doctor.check import CHECKS, DRIVER, Failed, Node
from raysynth.errors import reason_of

PATIENCE_SECONDS = 120.0
"""To wait for all nodes; one that has to fetch its working directory takes some."""
KEEP_GPUS = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
"""Ray hides a node's GPUs from a task that takes none; here they are counted, not used."""


@contextmanager
def cluster(config: Config) -> Iterator[None]:
    """The run's cluster, joined for the block as a run joins it; raises as that does."""
    import ray

    if ray.is_initialized():
        yield
        return
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    address = address_of(config.resources)
    check_reachable(address)
    try:
        with held_signals():
            join(address, "Fix: see the head's log; its Ray and Python must be of these versions")
        yield
    finally:
        with held_signals():
            ray.shutdown()


def alive_nodes() -> list[Node]:
    """The nodes that are up, by address; several of one address (a machine) with their ids."""
    import ray

    up = sorted(
        (node for node in ray.nodes() if node["Alive"]),
        key=lambda node: (node["NodeManagerAddress"], node["NodeID"]),
    )
    number = Counter(node["NodeManagerAddress"] for node in up)
    return [
        Node(
            address if number[address] == 1 else f"{address} ({node['NodeID'][-8:]})",
            node["NodeID"],
            node["Resources"],
        )
        for node in up
        for address in (node["NodeManagerAddress"],)
    ]


def look(config: Config, visit: str, names: Sequence[str]) -> dict[str, Any]:
    """Check -> what is seen of it from this process, or why nothing is."""
    found: dict[str, Any] = {}
    for name in names:
        looked = CHECKS[name].look
        if looked is None:
            continue
        try:
            found[name] = looked(config, visit)
        except Exception as error:
            found[name] = Failed.of(error)
    return found


def look_everywhere(
    config: Config, visit: str, names: Sequence[str], nodes: Sequence[Node]
) -> tuple[dict[str, Mapping[str, Any]], dict[str, Failed]]:
    """What is seen from the driver and from every node, and the nodes that did not answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {"num_cpus": 0, "max_retries": 0, "max_calls": 1, "runtime_env": KEEP_GPUS}
    task = ray.remote(**options)(look)
    asked = {
        node.name: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(config, visit, names)
        for node in nodes
    }
    seen: dict[str, Mapping[str, Any]] = {DRIVER: look(config, visit, names)}
    ready, _ = ray.wait([*asked.values()], num_returns=len(asked), timeout=PATIENCE_SECONDS)
    unheard: dict[str, Failed] = {}
    for name, answer in asked.items():
        if answer not in ready:
            unheard[name] = silent(f"no answer within {PATIENCE_SECONDS:g} s", "")
            ray.cancel(answer, force=True)
            continue
        try:
            seen[name] = ray.get(answer)
        except Exception as error:
            unheard[name] = silent(" ".join(reason_of(error).split()), type(error).__name__)
    return seen, unheard


def silent(reason: str, kind: str) -> Failed:
    """Why a node did not answer; `kind`: of the error, where it says no reason."""
    missing = "No module named" in reason
    fix = (
        "install this raysynth on every node, or submit the command as a job with --working-dir"
        if missing
        else "see the node's log; the same command looks at it again"
    )
    return Failed(f"cannot be looked at ({reason or kind})", fix, not missing)
