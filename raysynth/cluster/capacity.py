"""What the cluster has and what a run asks of it, compared before anything is started."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from raysynth.cluster.asked import Asked
from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import ConfigError

# Ray Data's pools hold their CPUs while its reads and writes wait for one each: a local Ray gets
# logical CPUs in excess of the cores so that two actors per stage cannot starve the plumbing.
LOGICAL_CPUS_PER_CORE = 4


HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):([0-9]{1,5})", re.ASCII)


REACH_SECONDS = 10.0
"""To wait for an answer of a cluster's address."""


def _ray_runs() -> bool:
    """Whether this process is connected to a Ray; not imported for it: it reads `ENVIRONMENT`."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def address_of(resources: ResourcesConfig) -> str:
    """The cluster that a run joins; `local`: a Ray of its own on this machine."""
    return resources.address or os.environ.get("RAY_ADDRESS") or "local"


def check_reachable(address: str) -> None:
    """Ask a cluster's address, if it says host and port: Ray would wait for minutes, in silence.

    Raises
    ------
    ConfigError
        It is no address of a Ray head's port, or nothing answers there.
    """
    if address == "auto":
        return  # Ray looks for one on this machine
    host, port = _host_and_port(address)
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except (OSError, UnicodeError) as error:  # a..b is no name of a host
        raise ConfigError(
            f"resources.address or RAY_ADDRESS: nothing answers at {address} ({error}); expected "
            "the address of a running Ray head, such as 10.0.0.5:6379. Fix: start it (`ray start "
            "--head` prints its address), or leave the address out for a Ray on this machine"
        ) from None


def _host_and_port(address: str) -> tuple[str, int]:
    scheme, separator, _ = address.partition("://")
    if separator:
        client = "a Ray client has no access to its driver's files and is not supported"
        raise ConfigError(
            f"resources.address or RAY_ADDRESS: got {address}, expected host:port of a Ray head, "
            f"such as 10.0.0.5:6379{f'; {client}' if scheme == 'ray' else ''}. Fix: submit the run "
            "as a job, which runs on the head (docs/cluster.md): `raysynth submit ... --address "
            "http://HEAD:8265`"
        )
    match = HOST_AND_PORT.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise ConfigError(
            f"resources.address or RAY_ADDRESS: got {address!r}, expected host:port (10.0.0.5:6379,"
            " [fd00::5]:6379), auto (a Ray that runs on this machine) or local. Fix: `ray start "
            "--head` prints the address; leave it out for a Ray of this run's own"
        )
    return match[1].strip("[]"), int(match[2])


def is_local(resources: ResourcesConfig) -> bool:
    """Whether a run has a Ray of its own on this machine."""
    return address_of(resources) == "local"


def local_cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def logical_cpus() -> int:
    """CPUs that a local Ray is started with; more than there are cores."""
    return local_cpus() * LOGICAL_CPUS_PER_CORE


class Demand(Protocol):
    """What is asked of a configuration here."""

    @property
    def resources(self) -> ResourcesConfig:
        """The section of this name."""

    @property
    def asked(self) -> Sequence[Asked]:
        """What its stages ask for, each by itself."""


def check_before_ray(config: Demand) -> None:
    """Refuse what can be known before Ray starts: too few CPUs or GPUs here, no cluster there.

    Where Ray runs, as in a benchmark's tasks, it is asked: this machine may be one of its nodes.
    """
    if _ray_runs():
        import ray

        check_cluster(config, ray.cluster_resources())
        return
    resources = config.resources
    if not is_local(resources):
        check_reachable(address_of(resources))
        return
    _check_memory(resources)
    available: dict[str, float] = {"CPU": local_cpus()}
    if any(one.gpus for one in config.asked):
        import torch

        available["GPU"] = torch.cuda.device_count()
    _check_asked(
        config.asked,
        available,
        "this machine",
        "name a cluster (resources.address or RAY_ADDRESS; resources.autoscales=true is for one "
        "that grows on demand)",
    )


def _check_memory(resources: ResourcesConfig) -> None:
    """Refuse an object store that is larger than this machine's memory."""
    import psutil

    there, asked = psutil.virtual_memory().total, resources.object_store_memory
    if asked > there:
        raise ConfigError(
            f"resources.object_store_memory: asks for {asked:,} bytes, this machine has {there:,} "
            "of memory. Fix: lower it; `raysynth plan` says what a run needs"
        )


def crowded(resources: ResourcesConfig, host: Mapping[str, float]) -> list[str]:
    """A warning where a run needs more main memory than this machine has.

    `host`: bytes by who holds them, as stages say what they cost (`stages.stage.Cost`). Of a
    cluster nothing is known here: its driver may run on another machine.
    """
    import psutil

    there = psutil.virtual_memory().total
    needed = max(host["driver"] + host["object store"], host.get("selection", 0.0))
    if not is_local(resources) or needed <= there:
        return []
    return [
        f"host memory: {needed / 1e9:,.1f} GB at once, this machine has {there / 1e9:,.1f} GB: the "
        "run would end when images are selected or classifiers are trained. Fix: fewer images "
        "(synthesis.images_per_group, selection.keep), smaller ones (classifier.image_size), or a "
        "machine with more memory"
    ]


def check_cluster(config: Demand, available: dict[str, float]) -> None:
    """Refuse a configuration that asks for more CPUs or GPUs than the Ray cluster has.

    Raises
    ------
    ConfigError
        Unless `resources.autoscales` says that the cluster grows on demand.
    """
    if not config.resources.autoscales:
        advice = "set resources.autoscales=true if the cluster grows on demand"
        _check_asked(config.asked, available, "the Ray cluster", advice)


def _check_asked(
    asked: Sequence[Asked], available: dict[str, float], where: str, advice: str
) -> None:
    for kind in ("CPU", "GPU"):
        there = available.get(kind, 0)
        for one in asked:
            number, each = one.of(kind)
            if number > there:
                raise ConfigError(
                    f"{one.knobs[0]} x {each}: asks for {number:g} {kind}s, {where} "
                    f"has {there:g}. Fix: lower {one.knobs[0]} or {each}, or {advice}"
                )
