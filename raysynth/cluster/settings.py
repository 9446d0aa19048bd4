"""The knobs of `resources`: what a worker asks of the cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from raysynth.knobs import Count, Named, Rate, Section


class ResourcesConfig(Section):
    """What a worker asks of the cluster, and how many there may be."""

    address: Named | None = Field(
        None, description="Ray cluster to join; None: RAY_ADDRESS if set, else a new local Ray."
    )
    workers: Count = Field(2, description="Workers of a stage in parallel.")
    cpus_per_worker: Rate = Field(1.0, description="CPUs of one worker.")
    gpus_per_worker: Annotated[float, Field(ge=0)] = Field(
        0.0, description="GPUs of one worker; a fraction shares a GPU."
    )
    autoscales: bool = Field(
        False,
        description="The cluster grows on demand: allow asking for more than it has now; "
        "a local Ray never grows.",
    )
    object_store_memory: Annotated[int, Field(ge=78_643_200, le=100_000_000_000_000)] = Field(
        400_000_000,
        description="Local Ray's object store, bytes; `raysynth plan` says what the classifiers' "
        "images take.",
    )
