"""Each family of checks on real files, and what it makes of what nodes may say."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from huggingface_hub import constants

from raysynth.config.files import load_config
from raysynth.doctor.check import (
    CHECKS,
    DRIVER,
    FAIL,
    HERE,
    OK,
    WARN,
    Failed,
    Node,
    Scene,
    places,
    together,
)
from raysynth.doctor.checks import room, storage, token, upload, versions
from raysynth.doctor.nodes import look, silent
from raysynth.errors import StorageError
from raysynth.models.sources import EMBEDDED
from raysynth.planning.plan import plan_run
from tests.models.test_hub import cached

ALONE = ["dataset.train_images=160", "dataset.severity=0.8"]


def scene(*overrides: str, **more) -> Scene:
    """What is seen of a configuration on this machine, without any look."""
    config = load_config(None, [*ALONE, *overrides])
    return Scene(config, "visit", more.pop("local", True), plan_run(config), **more)


def on_cluster(check: str, *overrides: str, **facts) -> Scene:
    """What is seen on a cluster: facts of the driver and of nodes a, b, ..."""
    seen = {DRIVER if place == "driver" else place: {check: told} for place, told in facts.items()}
    nodes = [Node(place, place, {"CPU": 8.0, "GPU": 1.0}) for place in facts if place != "driver"]
    return scene(*overrides, local=False, nodes=nodes, driver_node="a", seen=seen)


def judged(check: str, seen: Scene) -> list[tuple[str, str, str]]:
    return [(found.mark, found.text, found.fix) for found in CHECKS[check].judge(seen)]


def test_places_are_named_or_counted():
    assert places(["a"]) == "a"
    assert places(["a", "b", "c"]) == "a, b and c"
    assert places(list("abcde")) == "a, b, c and 2 more"


def test_what_several_nodes_say_alike_is_one_line_and_whether_it_passes():
    away = Failed.of(StorageError("s3://x: silent. Fix: see that\nit can be reached"))
    found = list(together({"a": away, "b": away, "c": Failed.of(KeyError("odd"))}))
    assert [one.text for one in found] == ["a and b: s3://x: silent", "c: KeyError: 'odd'"]
    assert [one.passing for one in found] == [True, False]
    assert found[0].fix == "see that it can be reached"
    refused = StorageError("s3://x: the storage refuses. Fix: credentials")
    refused.__cause__ = PermissionError("403")
    assert not Failed.of(refused).passing


def test_packages_are_held_against_what_raysynth_asks_for(monkeypatch):
    assert versions.unfit() == []
    asked = ["ray>=99", "nobody_has_it>=1", "s3fs>=999; extra == 's3'", "numpy>=1.26"]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    ray = metadata.version("ray")
    assert versions.unfit() == [
        f"ray {ray}, raysynth asks for >=99",
        "nobody_has_it is not installed, raysynth asks for >=1",
    ]
    seen = scene(seen={HERE: look(load_config(None), "visit", ["versions"])})
    found = judged("versions", seen)
    assert [(mark, text) for mark, text, _ in found] == [
        (FAIL, f"this machine: ray {ray}, raysynth asks for >=99"),
        (FAIL, "this machine: nobody_has_it is not installed, raysynth asks for >=1"),
    ]


def test_nodes_with_other_versions_or_another_source_are_named(monkeypatch, tmp_path):
    own = versions.look(load_config(None), "visit")
    assert set(own["versions"]) >= {"python", "ray", "torch", "diffusers", "raysynth"}
    old = {**own, "versions": {**own["versions"], "torch": "2.5.0"}}
    seen = on_cluster("versions", driver=own, a=own, b=old, c={**old, "source": "stale"})
    (torch, torch_fix), (source, source_fix) = (
        (text, fix) for mark, text, fix in judged("versions", seen) if mark == FAIL
    )
    pinned = own["versions"]["torch"]
    assert torch == f"b and c: torch 2.5.0, the driver has {pinned}" and pinned in torch_fix
    assert source.startswith("c: source of raysynth (digest stale), the driver has")
    assert "--working-dir" in source_fix
    same = on_cluster("versions", driver=own, a=own, b=own)
    assert [mark for mark, *_ in judged("versions", same)] == [OK]
    moved = tmp_path / "constraints.txt"
    moved.write_text("torch==1.0.0\n")
    monkeypatch.setattr(versions, "CONSTRAINTS", moved)
    (warning, good) = judged("versions", same)
    assert warning[0] == WARN and f"torch {pinned} (pinned: 1.0.0)" in warning[1]
    assert good[0] == OK and good[1].endswith("in the driver and on 2 nodes")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home whose token has yet to be made."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path / ".ray" / "auth_token"


def test_a_token_that_others_may_read_is_refused(home):
    config = load_config(None)
    assert judged("token", scene(seen={HERE: look(config, "visit", ["token"])}))[0][0] == OK
    home.write_text("secret")
    home.chmod(0o644)
    (found,) = judged("token", scene(seen={HERE: look(config, "visit", ["token"])}))
    assert found == (FAIL, f"this machine: others may read the token {home}", f"chmod 600 {home}")
    home.chmod(0o600)
    (found,) = judged("token", scene(seen={HERE: look(config, "visit", ["token"])}))
    assert found[0] == OK and "owner alone" in found[1]


def test_a_cluster_needs_a_token_everywhere(home, monkeypatch):
    config = load_config(None)
    none = token.look(config, "visit")
    marks = judged("token", on_cluster("token", driver=none, a=none))
    assert [mark for mark, *_ in marks] == [WARN, FAIL]
    assert "export RAY_AUTH_MODE=token" in marks[0][2] and "generate" in marks[1][2]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    good = token.look(config, "visit")
    assert judged("token", on_cluster("token", driver=good, a=good)) == [
        (OK, "RAY_AUTH_TOKEN, in the driver and on 1 node", "")
    ]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    shut_off = token.look(config, "visit")
    (found,) = judged("token", on_cluster("token", driver=good, a=shut_off))
    assert found[0] == FAIL and found[1].startswith("a: RAY_AUTH_MODE=disabled")


def test_a_cluster_is_held_against_what_is_asked_and_silent_nodes_are_named():
    resources = ["resources.workers=9", "resources.address=10.0.0.5:6379"]
    fits = on_cluster("address", *resources, driver={}, a={}, b={})
    ((mark, text, _),) = judged("address", fits)
    assert mark == OK and text.startswith("10.0.0.5:6379: 2 nodes, 16 CPUs, 2 GPUs; the widest")
    wide = on_cluster("address", *resources, driver={}, a={})
    ((mark, text, fix),) = judged("address", wide)
    assert mark == FAIL and "asks for 9 CPUs, the Ray cluster has 8" in text
    assert "resources.autoscales=true" in fix
    grows = on_cluster("address", *resources, "resources.autoscales=true", driver={}, a={})
    assert judged("address", grows)[0][0] == OK
    lost = {
        "b": silent("No module named 'raysynth'", "RayTaskError"),
        "c": silent("", "WorkerCrashedError"),
    }
    missing, crashed, _ = CHECKS["address"].judge(replace(grows, silent=lost))
    assert missing.text == "b: cannot be looked at (No module named 'raysynth')"
    assert not missing.passing and "--working-dir" in missing.fix
    assert crashed.passing and "WorkerCrashedError" in crashed.text


def test_nodes_of_one_machine_have_a_folder_each():
    facts = {"machine": "m", "folder": "/tmp/ray"}
    own = {**facts, "folder": "/tmp/b"}
    apart = {"driver": facts, "a": facts, "b": own, "c": {**facts, "machine": "n"}}
    assert judged("folders", on_cluster("folders", **apart)) == []
    ((mark, text, fix),) = judged("folders", on_cluster("folders", a=facts, b=facts, c=own))
    assert mark == WARN and text.startswith("a and b: one machine, and one folder /tmp/ray")
    assert "--temp-dir" in fix


def test_storage_is_used_as_a_run_uses_it_and_left_as_it_was(tmp_path):
    config = load_config(None, [f"storage_path={tmp_path / 'new' / 'runs'}"])
    seen = {HERE: look(config, "visit", ["storage"])}
    (found,) = judged("storage", Scene(config, "visit", True, plan_run(config), seen=seen))
    assert found[0] == OK and "written, read, listed, renamed and deleted here" in found[1]
    assert not (tmp_path / "new" / "runs").exists()
    (tmp_path / "file").write_text("no folder")
    config = load_config(None, [f"storage_path={tmp_path / 'file'}"])
    failed = look(config, "visit", ["storage"])["storage"]
    assert isinstance(failed, Failed) and str(tmp_path / "file") in failed.text and failed.fix


def test_a_folder_of_each_nodes_own_is_no_storage(tmp_path):
    """What a node wrote must be where the driver looks: the usual mistake is a local folder."""
    config = load_config(None, [f"storage_path={tmp_path}"])
    driver, far = storage.look(config, "visit"), storage.look(config, "elsewhere")
    seen = replace(on_cluster("storage", driver=driver, a=driver, b=far), config=config)
    (found,) = judged("storage", seen)
    assert found[:2] == (FAIL, f"b: {tmp_path} is another folder there than in the driver")
    assert "s3://" in found[2]
    assert [file.name for file in tmp_path.iterdir()] == [".raysynth-doctor-elsewhere"]


def test_a_missing_bucket_and_one_that_is_there(s3, monkeypatch):
    def never(*given: object, **named: object) -> None:
        raise AssertionError("a run copies nothing on an object store")

    monkeypatch.setattr("s3fs.S3FileSystem._cp_file", never)
    there = load_config(None, [f"storage_path={s3}/runs"])
    seen = Scene(
        there, "visit", True, plan_run(there), seen={HERE: look(there, "visit", ["storage"])}
    )
    (found,) = judged("storage", seen)
    assert found[0] == OK and f"{s3}/runs: written, read, listed and deleted here" in found[1]
    assert storage.sizes_below(f"{s3}/runs") == {}
    none = load_config(None, [f"storage_path={s3}-none/runs"])
    failed = look(none, "visit", ["storage"])["storage"]
    assert "bucket" in failed.text and "-none" in failed.text and not failed.passing


def facts(free: float, total: float = 100e9, **more) -> dict:
    usual = {"temporary": ("/tmp", free, total), "storage": None, "shm": (50e9, 60e9)}
    return {**usual, "memory": 64e9, **more}


def test_room_is_held_against_the_plan():
    assert judged("room", on_cluster("room", driver=facts(50e9), a=facts(50e9)))[-1][0] == OK
    full = judged("room", on_cluster("room", driver=facts(50e9), a=facts(4e9)))
    assert full[0][:2] == (
        FAIL,
        "a: the disk of /tmp is 96% full, and Ray keeps no objects on one that is over 95%",
    )
    tight = on_cluster("room", driver=facts(50e9, storage=("/runs", 1e6, 2e6)), a=facts(50e9))
    assert "/runs: 0.00 GB are free, a whole run writes" in judged("room", tight)[0][1]
    small = on_cluster("room", driver=facts(50e9, memory=1e6), a=facts(50e9))
    assert "the driver: 0.0 GB of memory, a run needs" in judged("room", small)[0][1]


def test_an_object_store_smaller_than_the_images_is_said():
    seen = on_cluster("room", driver=facts(50e9), a=facts(50e9))
    (found, _) = judged("room", seen)
    assert found[0] == WARN and found[1].startswith("a: Ray's object store is smaller than the")
    local = scene("resources.object_store_memory=78643200", "synthesis.images_per_group=20000")
    local = replace(local, seen={HERE: {"room": facts(50e9)}})
    (found, _) = judged("room", local)
    asked = int(found[2].rpartition("=")[2])
    assert asked >= local.plan.store_bytes > 0
    cramped = replace(local, seen={HERE: {"room": facts(50e9, shm=(1e6, 1e6))}})
    marks = [(mark, text) for mark, text, _ in judged("room", cramped)]
    assert [mark for mark, _ in marks] == [WARN, WARN, OK]
    assert marks[1][1].startswith("/dev/shm has 0.00 GB free")


GPU = ("resources.gpus_per_worker=1", "search.gpus_per_trial=1")


def cards(*free: float) -> dict:
    return {"devices": len(free), "torch": "2.13.0", "seen": [("H", n, 24e9) for n in free]}


def test_gpus_are_held_against_the_plan():
    none = cards()
    assert judged("gpus", on_cluster("gpus", *GPU, driver=none, a=cards(23e9)))[0][0] == OK
    ((mark, text, fix),) = judged("gpus", on_cluster("gpus", *GPU, driver=none, a=none))
    assert mark == FAIL and text == "a: Ray counts 1 GPUs, torch 2.13.0 sees 0" and "CUDA" in fix
    used = judged("gpus", on_cluster("gpus", *GPU, driver=none, a=cards(2e9)))
    assert [mark for mark, *_ in used] == [WARN, OK] and "only 2.0 GB of a GPU" in used[0][1]
    seen = on_cluster("gpus", *GPU, driver=none, a=cards(23e9), b=cards(23e9))
    generators = {
        name: replace(one, one_adapter_gb=30.0) for name, one in seen.plan.generators.items()
    }
    large = replace(seen, plan=replace(seen.plan, generators=generators))
    (found,) = judged("gpus", large)
    assert found[0] == FAIL and found[1].startswith("a and b: a worker has")
    assert "one adapter takes 30.0 GB" in found[1]


def test_gpus_that_are_not_up_or_not_asked_for():
    assert judged("gpus", scene(seen={HERE: {"gpus": cards()}}))[0][0] == OK
    idle = judged("gpus", scene(seen={HERE: {"gpus": cards(1.0)}}))
    assert idle[0][0] == WARN and "resources.gpus_per_worker=1" in idle[0][2]
    head = [Node("a", "a", {"CPU": 4.0})]
    grows = scene(
        *GPU, "resources.autoscales=true", local=False, nodes=head, seen={"a": {"gpus": cards()}}
    )
    assert judged("gpus", grows)[0][:2] == (
        WARN,
        "no node with a GPU is up, so that none was looked at; the cluster grows on demand",
    )
    assert judged("gpus", scene(*GPU, seen={HERE: {"gpus": cards()}}))[0][0] == FAIL


def test_models_are_found_by_the_code_that_loads_them(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = load_config(None, [*ALONE, "base.clip=some/clip"])
    failed = look(config, "visit", ["models"])["models"]
    assert "the commit of some/clip" in failed.text and "local cache" in failed.text
    folder = cached(tmp_path, "some/clip")
    assert look(config, "visit", ["models"])["models"] == {"hub": []}
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    away = look(config, "visit", ["models"])
    (warning, good) = judged("models", replace(scene(), config=config, seen={HERE: away}))
    assert warning[0] == WARN and "some/clip would be downloaded" in warning[1]
    assert good[0] == OK
    for given, said in (
        (f"base.name={tmp_path}", str(tmp_path)),
        ("dataset.path=/nowhere", "dataset.path: /nowhere is not there"),
    ):
        more = ["dataset.name=folder"] if "dataset" in given else []
        failed = look(load_config(None, [*more, given]), "visit", ["models"])["models"]
        assert said in failed.text and failed.fix, given


def test_a_base_of_the_hubs_is_read_and_not_only_named(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setattr(constants, name, str(tmp_path / "hub"))
    folder = cached(tmp_path, "some/base")  # a CLIP is in it
    config = load_config(None, ["base.name=some/base"])
    failed = look(config, "visit", ["models"])["models"]
    assert "base.name" in failed.text
    snapshot = folder / "snapshots" / ("b" * 40)
    for file in EMBEDDED.rglob("*"):
        if file.is_file():
            (snapshot / file.relative_to(EMBEDDED)).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file.relative_to(EMBEDDED)).write_bytes(file.read_bytes())
    assert look(config, "visit", ["models"])["models"] == {"hub": []}


def test_the_upload_is_counted_as_ray_packs_it(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large").write_bytes(b"0" * 3000)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ignored").write_bytes(b"0" * 500)
    (tmp_path / "sub" / ".gitignore").write_text("ignored\n")
    (tmp_path / "code.py").write_bytes(b"0" * 100)
    whole = {"data": 3000, "sub": len("ignored\n"), "code.py": 100}
    assert upload.sizes(tmp_path, 10_000) == (whole, True)
    (tmp_path / ".gitignore").write_text("data/\n")
    del whole["data"]
    assert upload.sizes(tmp_path, 10_000) == ({**whole, ".gitignore": 6}, True)
    assert upload.sizes(tmp_path, 5)[1] is False
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setattr("ray._private.ray_constants.DASHBOARD_CLIENT_MAX_SIZE", 50)
    (local,), (cluster,) = judged("upload", scene()), judged("upload", scene(local=False))
    assert (local[0], cluster[0]) == (WARN, FAIL) and "largest: code.py 0.0" in cluster[1]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert judged("upload", scene("storage_path=/runs", local=False))[0][0] == OK


def test_the_walk_is_rays_own(tmp_path):
    """Its functions are private: what it packs is what is counted."""
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    (tmp_path / "made").mkdir()
    for name in ("a.py", "b.bin", ".rayignore"):
        (tmp_path / "made" / name).write_text("*.bin\n")
    create_package(str(tmp_path / "made"), tmp_path / "package.zip", include_gitignore=True)
    packed = {
        info.filename: info.file_size for info in ZipFile(tmp_path / "package.zip").infolist()
    }
    assert upload.sizes(tmp_path / "made", 10_000)[0] == packed


def test_room_is_of_the_disk_that_a_path_would_be_on(tmp_path):
    assert room._usage(str(tmp_path / "not" / "there"))[1] == os.statvfs(tmp_path).f_blocks * (
        os.statvfs(tmp_path).f_frsize
    )
