"""The knobs of `resources`: what a worker asks of the cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raysynth.cluster.asked import Asked
from raysynth.knobs import Count, Named, Rate, Section, knob


class ResourcesConfig(Section):
    """What a worker asks of the cluster, and how many there may be."""

    address: Named | None = knob(
        None, "Ray cluster to join; None: RAY_ADDRESS if set, else a new local Ray.", width=True
    )
    workers: Count = knob(2, "Workers of a stage in parallel.", width=True)
    cpus_per_worker: Rate = knob(1.0, "CPUs of one worker.", width=True)
    gpus_per_worker: Annotated[float, Field(ge=0)] = knob(
        0.0, "GPUs of one worker; a fraction shares a GPU.", width=True
    )
    autoscales: bool = knob(
        False,
        "The cluster grows on demand: allow asking for more than it has now; a local Ray never "
        "grows.",
        width=True,
    )
    object_store_memory: Annotated[int, Field(ge=78_643_200, le=100_000_000_000_000)] = knob(
        400_000_000,
        "Local Ray's object store, bytes; `raysynth plan` says what the classifiers' images take.",
        width=True,
    )

    @property
    def asked(self) -> Asked:
        """What the workers of a stage ask for."""
        knobs = ("resources.workers", "resources.cpus_per_worker", "resources.gpus_per_worker")
        return Asked(self.workers, self.cpus_per_worker, self.gpus_per_worker, knobs)
