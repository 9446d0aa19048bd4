"""How much of a generation's plan the driver holds, and how soon one that was cut off draws again.

    python benchmarks/scale.py [--quick] [--before CHECKOUT]

The real stage on a real Ray, its models a stand-in (`streaming.TinySampler`), stopped at its first
new image. Each case is a process of its own; with `--before` (a checkout of another build) the two
builds take turns.

* start N: nothing is there.
* resume N: the first 90 % of the shards are there, as an attempt that was killed leaves them.
* select N, without Ray: the selection of N candidates, this build alone.
* hold N, without Ray: the plan, the collector, what is missing, and all blocks and shards told of,
  as they come in a run of N images; this build alone.

Memory is the driver's own (USS), its peak from the plan to the first new image, and how much of it
came on top of what it imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from measure import finish, parser
from streaming import GROUPS, TinySampler

from raysynth.synthesis.shards import ShardRecord

BATCH, SHARD, DONE = 64, 1000, 0.9
STARTS, RESUMES, HOLDS = (200_000, 1_000_000), (200_000, 1_000_000), (10**5, 10**6, 10**7)
SELECTS = (10**5, 10**6)
MEMORY_BAR = 0.5  # at a million planned images, of the build before's
RESUME_BAR = 2.0  # at 200,000 images, of a plain start
LIMIT_SECONDS = 230


class Peak:
    """The most memory that this process has held since it was made, sampled."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.first = self.most = self._held()
        threading.Thread(target=self._follow, daemon=True).start()

    def _held(self) -> float:
        return self._process.memory_full_info().uss / 1e6

    def _follow(self) -> None:
        while True:
            time.sleep(0.05)
            self.look()

    def look(self) -> None:
        self.most = max(self.most, self._held())

    def told(self) -> dict[str, float]:
        self.look()
        return {"peak_mb": round(self.most), "grown_mb": round(self.most - self.first, 1)}


def configured(work: str, images: int) -> Any:
    from raysynth.config.files import load_config

    each = f"synthesis.images_per_group={images // GROUPS.count}"
    return load_config(None, [f"storage_path={work}", "generator=vanilla", each])


def planned(config: Any) -> Any:
    """The plan; of builds before there was one, the table of all specs."""
    from raysynth.generators.recipe import recipe_of
    from raysynth.synthesis.specs import Asked

    try:
        from raysynth.synthesis.plan import plan_specs
    except ImportError:
        from raysynth.synthesis.specs import plan_specs
    return plan_specs(Asked.of(config, recipe_of(config)), [], GROUPS, [1] * GROUPS.count)


def leave(stage: Path, images: int) -> None:
    """What an attempt leaves that was killed after 90 % of its images: shards, and notes of both
    builds; of all shards one file is written, for none is read but for its rows and its bytes."""
    for folder in ("notes", "checkpoint", "blocks"):
        (stage / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = [rng.bytes(2_200) for _ in range(SHARD)]  # as many bytes as a 32-pixel image has
    data = pa.table({"id": [f"g0-c0-{n:06d}" for n in range(SHARD)], "image": pixels})
    pq.write_table(data, stage / "one")
    whole = (stage / "one").read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    each = images // GROUPS.count // SHARD
    for number in range(round(DONE * images / SHARD)):
        group, place = divmod(number, each)
        file = f"group-{group}-{place:05d}.parquet"
        os.link(stage / "one", stage / file)
        note = {"file": file, "group": group, "rows": SHARD, "sha256": digest, "bytes": len(whole)}
        (stage / "notes" / f"{file}.json").write_text(json.dumps(note))
    (stage / "one").unlink()
    for first in range(0, round(DONE * images), BATCH):
        rows = np.arange(first, min(first + BATCH, round(DONE * images)))
        path = stage / "checkpoint" / f"{first:012d}.parquet"
        pq.write_table(pa.table({"row_of_plan": rows}), path)


def child(images: int, work: str) -> None:
    """Run the stage until its first new image; prints what that took."""
    from rich.console import Console

    from raysynth.cluster.session import Session
    from raysynth.progress import Progress
    from raysynth.synthesis.stage import generate
    from raysynth.synthesis.task import Task

    config = configured(work, images)
    facts: dict[str, Any] = {}

    class Until(Progress):
        """Stops the stage at its first new image."""

        resumed = -1.0

        def update(self, what: str, done: float = 0, total: float = 0) -> None:
            if what != "images generated" or facts:
                return
            if self.resumed < 0:
                self.resumed = done if done >= DONE * total else 0
            if done > self.resumed:
                facts.update(seconds=round(time.monotonic() - start, 1), **peak.told())
                facts["resumed"] = self.resumed
                os.kill(os.getpid(), signal.SIGINT)

    task = Task.of(config, GROUPS, "", (), "", sampler=TinySampler)
    progress = Until(Console(file=sys.stderr, soft_wrap=True))
    with Session(config, work) as session:
        session.start()
        start, peak = time.monotonic(), Peak()
        with suppress(KeyboardInterrupt):
            generate(task, planned(config), f"{work}/stage", progress)
    print(json.dumps(facts), flush=True)
    os._exit(0)


class Instant:
    """As much of Ray as the collector asks for: a shard is written as soon as that is asked."""

    exceptions = ray.exceptions

    def remote(self, work: str, shard: Any, blocks: Any, groups: Any) -> ShardRecord:
        return ShardRecord(shard.file, shard.group, shard.count, "0" * 64)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 400.0}

    def wait(self, written: list[ShardRecord], **_: Any) -> tuple[list[ShardRecord], list[Any]]:
        return written, []

    def get(self, written: ShardRecord) -> ShardRecord:
        return written


def hold(images: int, work: str) -> None:
    """The driver's own structures for a run of so many images, without Ray; prints their cost."""
    import raysynth.synthesis.collect as collect
    from raysynth.progress import Progress
    from raysynth.synthesis.blocks import Block, name_of
    from raysynth.synthesis.plan import START, STOP, batches, group_ranges
    from raysynth.synthesis.shards import plan_shards, write_manifest
    from raysynth.synthesis.timeline import SPAN

    config = configured(work, images)
    peak, start = Peak(), time.monotonic()
    plan = planned(config)
    shards = plan_shards(group_ranges(plan), SHARD)
    collector = collect.Collector(work, shards, GROUPS, Progress())
    asked = batches(collector.missing, BATCH)
    begun = time.monotonic() - start
    collector._write = collect.ray = Instant()
    spans = [
        {"actor": f"host-{n}", "part": part} for n in range(200) for part in ("unet", "decode")
    ]
    for number, (first, last) in enumerate(
        zip(asked[START].to_pylist(), asked[STOP].to_pylist(), strict=True)
    ):
        ranges = np.array([[first, last]])
        mine = spans[2 * (number % 200) : 2 * (number % 200) + 2]
        timed = {"start": float(number), "end": number + 0.5, "images": last - first}
        told = pa.Table.from_pylist([{**span, **timed} for span in mine], SPAN)
        collector.take(Block(name_of(ranges), ranges), told)
        if number % 64 == 63:
            collector.step()
    collector.finish()
    assert collector.done == images and not collector.waiting
    write_manifest(work, collector.records, {})
    size = os.path.getsize(f"{work}/manifest.json")
    seconds = time.monotonic() - start
    facts = {"plan_seconds": round(begun, 2), "seconds": round(seconds, 1), **peak.told()}
    print(json.dumps(facts | {"shards": len(shards), "manifest_mb": round(size / 1e6, 2)}))


def selected(images: int) -> None:
    """The selection of so many candidates; prints its cost."""
    from raysynth.config.config import Config
    from raysynth.selection.settings import SelectionConfig
    from raysynth.selection.stage import read_of, select

    settings, rng = Config()[SelectionConfig], np.random.default_rng(0)
    columns = {
        name: pa.array(rng.random(images, np.float32) * 0.5)
        if pa.types.is_floating(kind)
        else pa.array(np.arange(images, dtype=np.int32) % GROUPS.count)
        for name, kind in read_of(settings).items()
    }
    columns["id"] = pa.array([f"g0-c0-{n:08d}" for n in range(images)])
    peak, start = Peak(), time.monotonic()
    candidates = pa.table(columns)
    select(candidates, np.full(GROUPS.count, 0.99, np.float32), settings, GROUPS, 0)
    facts = {"seconds": round(time.monotonic() - start, 1), **peak.told()}
    each = (facts["grown_mb"] * 1e6 + candidates.nbytes) / images
    print(json.dumps(facts | {"bytes_per_candidate": round(each)}))


def measured(kind: str, images: int, build: str = "") -> dict[str, Any]:
    """Facts of a case in a process of its own; `build`: the checkout whose package it runs."""
    print(f"{kind} {images:,} {build or 'this build'}", file=sys.stderr)
    package = build or str(Path(__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": package, "RAY_worker_niceness": "0"}
    with tempfile.TemporaryDirectory(prefix="raysynth-") as work:
        if kind == "resume":
            leave(Path(work) / "stage", images)
        command = [sys.executable, __file__, "--child", kind, str(images), work]
        told: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "timeout": LIMIT_SECONDS}
        # Elsewhere than in a checkout: Ray's workers would import the package from there.
        done = subprocess.run(command, env=env, cwd=work, **told)
    if done.returncode:
        raise SystemExit(f"{kind} {images}: exited with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of a case's repetitions."""
    return {name: median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--before", default="", help="a checkout of another build")
    options.add_argument("--only", default="", help="start, resume, hold or select")
    options.add_argument("--child", nargs=3, metavar=("KIND", "IMAGES", "FOLDER"))
    arguments = options.parse_args()
    if arguments.child:
        kind, images, work = arguments.child
        if kind == "select":
            selected(int(images))
        else:
            (hold if kind == "hold" else child)(int(images), work)
        return
    sizes = {"start": STARTS, "resume": RESUMES, "hold": HOLDS, "select": SELECTS}
    if arguments.quick:
        sizes = {"start": (20_000,), "resume": (20_000,), "hold": (10**5,), "select": (10**5,)}
    wanted = [arguments.only] if arguments.only else list(sizes)
    cases = [(kind, images) for kind in wanted for images in sizes[kind]]
    builds = {"this": "", **({"before": arguments.before} if arguments.before else {})}
    repeats = arguments.repeats or 1
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for kind, images in cases:
            for name, build in builds.items():
                if kind in ("start", "resume") or name == "this":
                    facts = measured(kind, images, build)
                    found.setdefault(f"{kind} {images} {name}", []).append(facts)
    numbers = {case: middle(runs) for case, runs in found.items()}
    finish("scale", {"repetitions": repeats, **numbers}, _bars(numbers), arguments.quick)


def _bars(numbers: dict[str, Any]) -> dict[str, bool]:
    """What is judged, where it was measured."""
    bars = (
        (
            f"driver's memory for a million planned images <= {MEMORY_BAR} of the build before's",
            ("peak_mb", "start 1000000 this", "start 1000000 before", MEMORY_BAR),
        ),
        (
            f"seconds to resume at 90 % of 200,000 images <= {RESUME_BAR} of a plain start",
            ("seconds", "resume 200000 this", "start 200000 this", RESUME_BAR),
        ),
    )
    return {
        said: numbers[mine][what] <= most * numbers[other][what]
        for said, (what, mine, other, most) in bars
        if {mine, other} <= numbers.keys()
    }


if __name__ == "__main__":
    main()
