"""The faults: each does its harm to a scene and sees the run to its end."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import fsspec

from raysynth.method import FOLDERS
from tests.chaos.damage import Harm, cut, empty, fewer, poison
from tests.chaos.driver import CHILDREN_SECONDS, Driver
from tests.chaos.following import WentOn, bytes_below
from tests.chaos.miniature import COUNTING, NAME, STAGES, counted, work_folder
from tests.chaos.nodes import Nodes
from tests.chaos.proxy import Proxy, reached_at
from tests.chaos.scene import MissedError, Scene

AWAY_SECONDS = 20.0
FAILING = 0.01
ROOM_BYTES = 2**30
"""Of the larger disk."""
LONGEST_NAME = 12
"""Characters of a file's name that says what is in it."""
TRAINER = r"^ray::RayTrainWorker"
ACTOR = r"^ray::MapWorker"
TRIAL = r"^ray::ImplicitFunc"
AGENT = r"^ray::DashboardAgent"
TASK = (
    r"^ray::(?!IDLE|DashboardAgent|RuntimeEnvAgent|"
    r"TrainController|RayTrainWorker|MapWorker|ImplicitFunc|_)"
)
ON_RAY = ("clustering", "finetune", "synthesis", "references", "search", "classification")
"""Stages whose work lies in Ray's processes."""


@dataclass(frozen=True)
class Fault:
    """A kind of harm."""

    title: str
    stages: tuple[str, ...]
    """In which it is done, in turn."""
    do: Callable[[Scene], None]
    upto: str = ""
    """Last stage that is run; "": the one that harm is done in."""


def process_killed(pattern: str, scene: Scene) -> None:
    """One of Ray's processes dies; the driver is to go on by itself."""
    scene.begin()
    with scene.driver() as driver:
        replaced = partial(driver.replaced, pattern)
        _lost(scene, driver, "SIGKILL of {}", partial(driver.kill_one, pattern), replaced)
        scene.again()


def _lost(
    scene: Scene,
    driver: Driver,
    said: str,
    harm: Callable[[], str],
    replaced: Callable[[], bool],
) -> None:
    """Do harm at the moment, and see the driver to its end.

    `said`: the harm in words, with what `harm` took; that is "" where there was nothing to take
    yet. `replaced`: whether somebody has its place.
    """
    taken = [""]

    def done() -> bool:
        taken[0] = harm()
        return bool(taken[0])

    found = scene.wait_for_work(driver, done)
    scene.record.harm = said.format(taken[0])
    driver.end(_once(replaced, found))
    scene.ended(driver)
    scene.went_on(found)


def _once(replaced: Callable[[], bool], found: WentOn) -> Callable[[float], None]:
    """Looks for new work once somebody has taken the place of who was lost."""
    state = {"looked": 0.0, "replaced": 0.0}

    def look(now: float) -> None:
        if not state["replaced"] and now - state["looked"] > CHILDREN_SECONDS:
            state["looked"] = now
            if replaced():
                state["replaced"] = now
                found.restart()
        if state["replaced"]:
            found.look(now)

    return look


def node_lost(pattern: str, scene: Scene) -> None:
    """A node of two dies with all that it holds, some of which is the stage's."""
    scene.begin()
    with Nodes(scene.scratch) as nodes:
        own = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
        scene.environment = {name: nodes.environment[name] for name in own}
        scene.more = [f"resources.address={nodes.address}"]
        with scene.driver() as driver:
            runs = partial(nodes.runs, pattern)
            _lost(scene, driver, "the node of {} lost", partial(nodes.lose, pattern), runs)
        scene.again()


def agent_killed(scene: Scene) -> None:
    """An agent of the Ray on the driver's machine dies, and takes all workers with it."""
    _driver_ends(scene, "SIGKILL of Ray's agent", lambda driver: bool(driver.kill_one(AGENT)))


def driver_ended(number: signal.Signals, scene: Scene) -> None:
    """The driver gets a signal; what its Ray left is there when the command is given again."""

    def send(driver: Driver) -> bool:
        driver.send(number)
        return True

    _driver_ends(scene, number.name, send)


def _driver_ends(scene: Scene, said: str, harm: Callable[[Driver], bool]) -> None:
    """Do harm that ends the driver, as soon as it could be done, and see the run to its end."""
    scene.begin()
    with scene.driver() as driver:
        scene.wait_for_work(driver, partial(harm, driver))
        sent = time.monotonic()
        driver.end()
        scene.ended(driver)
        scene.record.harm = f"{said}, gone after {time.monotonic() - sent:.1f} s"
        if driver.code == 0:
            raise MissedError("the driver ended by itself")
        scene.again()


def killed_at_operation(scene: Scene) -> None:
    """The driver dies before one of its own changes to a file of the run."""
    run = scene.begin()
    last = max(1, round(scene.fraction * scene.facts["operations"]))
    scene.environment = counted(run, scene.scratch / "count", last)
    with scene.driver(COUNTING) as driver:
        driver.end()
        scene.ended(driver)
        if driver.code == 0:
            raise MissedError(f"less than {last} file operations")
        scene.environment = {}
        scene.record.harm = f"SIGKILL before file operation {last}"
        scene.again()


def storage_away(how: str, scene: Scene) -> None:
    """The run lies on S3, which is silent or refuses for a while, or fails some requests."""
    with Proxy(scene.server(), scene.dice.randrange(2**31)) as proxy:
        remote = _on_s3(scene, proxy)
        at = max(1, round(scene.fraction * _requests(scene, proxy)))
        before = proxy.requests
        if how == "failing":
            proxy.failing, proxy.sure = FAILING, before + at
        with scene.driver() as driver:
            if how != "failing":
                if not driver.until(lambda: proxy.requests - before >= at):
                    scene.ended(driver)
                    raise MissedError(f"less than {at} requests")
                _be_away(how, proxy, scene, driver)
            driver.end()
            scene.ended(driver)
        if how == "failing":
            count = proxy.requests - before
            scene.record.harm = f"{proxy.failed} of {count} requests answered with 503"
        scene.again()
        proxy.failing, proxy.sure = 0.0, -1
        _fetch(remote, scene)


def _be_away(how: str, proxy: Proxy, scene: Scene, driver: Driver) -> None:
    """Harm for `AWAY_SECONDS`, then note when the storage was used again."""
    scene.record.harm = f"{how} for {AWAY_SECONDS:.0f} s at request {proxy.requests}"
    began = time.monotonic()
    getattr(proxy, {"silent": "silence", "refusing": "refuse"}[how])()
    driver.until(lambda: time.monotonic() - began >= AWAY_SECONDS)
    time.sleep(max(0.0, began + AWAY_SECONDS - time.monotonic()))  # also if the command has ended
    proxy.serve()
    answers = proxy.answers
    if driver.until(lambda: proxy.answers > answers):
        scene.record.seconds = round(time.monotonic() - began, 1)


def _on_s3(scene: Scene, proxy: Proxy) -> fsspec.AbstractFileSystem:
    """Put the run before the stage into a bucket of its own; the filesystem, past the proxy."""
    import s3fs

    keys = reached_at(scene.server())
    remote = s3fs.S3FileSystem(
        key=keys["AWS_ACCESS_KEY_ID"],
        secret=keys["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=keys["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    )
    bucket = f"runs-{random.randrange(2**40):x}"
    remote.mkdir(bucket)
    if before := scene.reference.before(scene.stage):
        for file in sorted(path for path in before.rglob("*") if path.is_file()):
            remote.put_file(str(file), f"{bucket}/{NAME}/{file.relative_to(before)}")
    scene.storage = f"s3://{bucket}"
    scene.environment = reached_at(proxy.port)
    return remote


def _requests(scene: Scene, proxy: Proxy) -> int:
    """How many requests the stage makes on S3, undisturbed; counted once and kept."""
    note = scene.reference.folder / scene.stage / "requests.txt"
    if not note.exists():
        storage = scene.storage
        remote = _on_s3(scene, proxy)
        with scene.driver() as driver:
            if driver.end():
                raise RuntimeError(f"undisturbed on S3: {driver.text[-1000:]}")
        remote.rm(scene.storage.removeprefix("s3://"), recursive=True)
        note.write_text(str(proxy.requests))
        scene.storage = storage
    return int(note.read_text())


def _fetch(remote: fsspec.AbstractFileSystem, scene: Scene) -> None:
    """Copy the outputs to where they are compared, under the name that they have on a disk.

    On object stores a stage stays where it was built, in a folder with its digest.
    """
    bucket, folder = scene.storage.removeprefix("s3://"), FOLDERS[scene.stage]
    remote.invalidate_cache()
    for key in remote.find(f"{bucket}/{NAME}"):
        name = str(key).removeprefix(f"{bucket}/{NAME}/")
        if found := re.fullmatch(rf"{folder}(?:-[0-9a-f]{{16}})?/(.+)", name):
            local = scene.folder / NAME / folder / found[1]
            local.parent.mkdir(parents=True, exist_ok=True)
            remote.get_file(key, str(local))
    remote.rm(bucket, recursive=True)


def disk_full(scene: Scene) -> None:
    """The run lies on a disk that takes a part of the stage, and then on a larger one."""
    before = scene.reference.before(scene.stage)
    there = bytes_below(before) if before else 0
    room = there + round(scene.fraction * scene.facts["bytes"]) + 4096
    disk = str(scene.folder)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        raise RuntimeError("a small disk cannot be mounted: the suite needs root for this fault")
    scene.open.callback(subprocess.run, ["umount", "-l", disk], check=False)
    scene.begin()
    with scene.driver() as driver:
        driver.end()
        scene.ended(driver)
        scene.record.harm = f"disk of {room:,} bytes, {room - there:,} free"
        if driver.code == 0:
            raise MissedError("there was room")
        subprocess.run(["mount", "-o", f"remount,size={ROOM_BYTES}", disk], check=True)
        scene.again()


def file_harmed(harm: Harm, scene: Scene, suffix: str = "") -> None:
    """A file of a finished stage is not what it was; the same command is given again."""
    shutil.copytree(scene.reference.after(scene.stage), scene.run)
    folder = FOLDERS[scene.stage]
    files = [path for path in (scene.run / folder).rglob("*") if _is_output(path)]
    files += [scene.run / "manifest.json", scene.run / ".records" / f"{folder}.json"]
    _harm_one(harm, files, suffix, scene)
    scene.again()


def left_file_harmed(harm: Harm, scene: Scene, suffix: str = "") -> None:
    """A file of a half-done stage is not what it was, after the driver has been killed."""
    run = scene.begin()
    with scene.driver() as driver:
        scene.wait_for_work(driver)
        driver.send(signal.SIGKILL)
        driver.end()
        scene.ended(driver)
    work = work_folder(run, scene.stage)
    if work is None:
        raise MissedError("the stage was finished")
    files = [path for path in work.rglob("*") if path.is_file() and _is_kept(path, work)]
    _harm_one(harm, files, suffix, scene)
    scene.again()


def _is_kept(path: Path, work: Path) -> bool:
    """Whether the next start goes on from a file; hidden ones are notices of a single start."""
    hidden = any(part.startswith(".") for part in path.relative_to(work).parts)
    return not hidden and path.suffix != ".tmp"


def _is_output(path: Path) -> bool:
    return path.is_file() and "tune" not in path.parts and not path.name.startswith(".")


def _harm_one(harm: Harm, files: list[Path], suffix: str, scene: Scene) -> None:
    """Harm a file of a kind, each kind as likely: files of a name, tables of a folder."""
    kinds: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(path for path in files if path.suffix.endswith(suffix) and path.exists()):
        many = path.suffix == ".parquet" or len(path.stem) > LONGEST_NAME  # numbered, or hashed
        where = path.parent.name if path.suffix == ".parquet" else ""
        kinds[where, path.suffix if many else path.name].append(path)
    if not kinds:
        raise MissedError(f"no file {suffix or 'of any kind'} to harm")
    path = scene.dice.choice(kinds[scene.dice.choice(sorted(kinds))])
    scene.record.harm = f"{path.relative_to(scene.run)} {harm(path, scene.dice)}"


UNTIL_IMAGES = "synthesis"
FAULTS = {
    "worker": Fault("fine-tuning worker killed", ("finetune",), partial(process_killed, TRAINER)),
    "actor": Fault("generating actor killed", ("synthesis",), partial(process_killed, ACTOR)),
    "trial": Fault("a trial's process killed", ("search",), partial(process_killed, TRIAL)),
    "task": Fault(
        "a task's process killed",
        ("clustering", "synthesis", "references", "classification"),
        partial(process_killed, TASK),
    ),
    "trainer-node": Fault(
        "node of a fine-tuning worker lost", ("finetune",), partial(node_lost, TRAINER)
    ),
    "actor-node": Fault(
        "node of a generating actor lost", ("synthesis",), partial(node_lost, ACTOR)
    ),
    "agent": Fault("agent of the machine's own Ray killed", ON_RAY, agent_killed),
    "kill": Fault("driver killed", STAGES, partial(driver_ended, signal.SIGKILL)),
    "kill-at-write": Fault("driver killed at one of its writes", STAGES, killed_at_operation),
    "sigterm": Fault("SIGTERM", STAGES, partial(driver_ended, signal.SIGTERM)),
    "ctrl-c": Fault("Ctrl-C", STAGES, partial(driver_ended, signal.SIGINT)),
    "silent": Fault("S3 silent for 20 s", STAGES, partial(storage_away, "silent")),
    "refusing": Fault("S3 refuses for 20 s", STAGES, partial(storage_away, "refusing")),
    "failing": Fault("S3 fails 1 % of requests", STAGES, partial(storage_away, "failing")),
    "disk-full": Fault("disk full, then a larger one", STAGES, disk_full),
    "cut": Fault("finished file cut", STAGES, partial(file_harmed, cut)),
    "emptied": Fault("finished file emptied", STAGES, partial(file_harmed, empty)),
    "fewer": Fault("finished file with fewer rows", STAGES, partial(file_harmed, fewer)),
    "poisoned": Fault(
        "finished weights not finite",
        ("finetune",),
        partial(file_harmed, poison, suffix=".safetensors"),
        UNTIL_IMAGES,
    ),
    "left-cut": Fault("half-done file cut", ON_RAY, partial(left_file_harmed, cut)),
    "left-emptied": Fault("half-done file emptied", ON_RAY, partial(left_file_harmed, empty)),
    "left-fewer": Fault("half-done file with fewer rows", ON_RAY, partial(left_file_harmed, fewer)),
    "left-poisoned": Fault(
        "half-done weights not finite",
        ("finetune",),
        partial(left_file_harmed, poison, suffix=".safetensors"),
        UNTIL_IMAGES,
    ),
}
