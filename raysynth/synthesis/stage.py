"""The synthesis stage: specs -> images -> scores -> Parquet, streaming and resumable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import fsspec
import numpy as np
import ray
from ray.data.checkpoint import CheckpointConfig

from raysynth.clustering.embed import column_vectors
from raysynth.clustering.pool import TASK_CPUS, actor_pool
from raysynth.config import Config
from raysynth.errors import RaysynthError, StageError
from raysynth.finetune.plan import read_adapters
from raysynth.groups import Groups
from raysynth.progress import Progress
from raysynth.synthesis.actor import Synthesizer, Task
from raysynth.synthesis.collect import Collector
from raysynth.synthesis.encode import encode_rows
from raysynth.synthesis.shards import plan_shards, read_manifest, write_manifest
from raysynth.synthesis.solver import check_solver
from raysynth.synthesis.specs import plan_specs
from raysynth.tables import read_table, write_table

SCRATCH = ("specs", "blocks", "checkpoint")
CHECKPOINT_FILTER_BYTES = 256 * 2**20  # Ray's default of 1 GiB does not fit beside the rest


def run_synthesis(
    config: Config,
    adapters: str,
    clusters: str,
    groups: Groups,
    counts: Sequence[int] | np.ndarray,
    work: str,
    progress: Progress,
) -> dict[str, Any]:
    """Generate, score and write every candidate image.

    Leaves in `work` shards `group-<g>-<nnnnn>.parquet` of the synthetic table, each of one group
    with at most `synthesis.rows_per_shard` rows, and manifest.json, written last. An attempt that
    was cut off is gone on with: images that are on disk are not generated again.

    Parameters
    ----------
    adapters, clusters : folders or URIs of the fine-tuning and the clustering stage.
    counts : [G] training images per group.

    Returns
    -------
    Facts: rows, groups {name: rows}, generated (in this attempt), resumed, images_per_second.
    """
    manifest = read_manifest(work)
    if manifest is None:
        _generate(config, adapters, clusters, groups, counts, work, progress)
        manifest = read_manifest(work)
    assert manifest is not None, "written by _generate"
    _clear(work)
    return {"rows": manifest["rows"], **manifest["facts"]}


def _generate(
    config: Config,
    adapters: str,
    clusters: str,
    groups: Groups,
    counts: Sequence[int] | np.ndarray,
    work: str,
    progress: Progress,
) -> None:
    start = time.monotonic()
    check_solver(config)
    trained = [] if config.finetune.engine == "none" else read_adapters(adapters)
    specs = plan_specs(config, trained, groups, counts)
    names = tuple(name for name in specs["adapter"].unique().to_pylist() if name)
    task = Task(config, groups, adapters, names, _centroids(clusters))
    write_table(specs, f"{work}/specs/specs.parquet")
    shards = plan_shards(specs, config.synthesis.rows_per_shard)
    with Collector(work, shards, groups, progress) as collector:
        resumed = collector.done
        if resumed < collector.total:
            _write_blocks(task, work)
    records = collector.finish()
    if collector.waiting:
        missing = ", ".join(shard.file for shard in collector.waiting[:3])
        raise StageError(
            f"synthesis: {collector.done} of {collector.total} images are on disk after the last "
            f"one was generated; {missing} cannot be written. Fix: run again, it goes on from there"
        )
    generated = collector.total - resumed
    rate = generated / (time.monotonic() - start)
    facts = {
        "groups": {groups.name(g): _rows_of(records, g) for g in range(groups.count)},
        "shards": len(records),
        "generated": generated,
        "resumed": resumed,
        "images_per_second": round(rate, 1),
    }
    write_manifest(work, records, facts)
    progress.say(
        f"  {generated} images generated, {rate:.0f} images/s; {resumed} were there already"
    )


def _write_blocks(task: Task, work: str) -> None:
    """The Ray Data job: every image that the checkpoint does not list."""
    synthesis = task.config.synthesis
    # One file of specs is one block to Ray Data, hence one actor and nothing to stream: cut it.
    dataset = ray.data.read_parquet(f"{work}/specs", num_cpus=TASK_CPUS).repartition(
        target_num_rows_per_block=synthesis.batch_size
    )
    checkpoint = CheckpointConfig(
        id_column="id",
        checkpoint_path=f"{work}/checkpoint",
        # The collector still reads it; it goes when the manifest is written.
        delete_checkpoint_on_success=False,
    )
    checkpoint.checkpoint_actor_memory_bytes = CHECKPOINT_FILTER_BYTES
    dataset.context.checkpoint_config = checkpoint
    dataset.context.raise_original_map_exception = True
    rows = dataset.map_batches(
        Synthesizer,
        fn_constructor_args=(task,),
        batch_size=synthesis.batch_size,
        batch_format="pyarrow",
        **actor_pool(task.config.resources, synthesis.actors),
    ).map_batches(encode_rows, batch_size=None, batch_format="pyarrow", num_cpus=TASK_CPUS)
    try:
        rows.write_parquet(f"{work}/blocks", ray_remote_args={"num_cpus": TASK_CPUS})
    except RaysynthError as error:
        # Ray wraps what a worker raised and prints its traceback; the user needs the message.
        raise getattr(error, "cause", error) from error


def _centroids(clusters: str) -> np.ndarray:
    """[G, D] by group."""
    table = read_table(clusters, files=[f"{clusters}/centroids.parquet"]).sort_by("group")
    return column_vectors(table["embedding"])


def _rows_of(records: Sequence[Any], group: int) -> int:
    return sum(record.rows for record in records if record.group == group)


def _clear(work: str) -> None:
    """Leave only what the manifest names."""
    filesystem, root = fsspec.core.url_to_fs(work)
    for name in SCRATCH:
        if filesystem.exists(f"{root}/{name}"):
            filesystem.rm(f"{root}/{name}", recursive=True)
