"""The whole method on a miniature config, and what is refused before Ray starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from raysynth import method, pipeline
from raysynth.config.files import load_config
from raysynth.datasets.declared import INGEST
from raysynth.datasets.listing import few_measured
from raysynth.errors import ConfigError, DataError, ModelError
from raysynth.groups.groups import Groups
from raysynth.method import FOLDERS
from raysynth.networks.checks import check_sides
from raysynth.pipeline import run_pipeline
from raysynth.planning.plan import plan_run
from raysynth.planning.planned import print_plan
from raysynth.planning.preflight import preflight, strange_lenders, warnings_of
from raysynth.stages.run import Run
from raysynth.stages.stage import Stage, Work
from raysynth.storage.files import write_atomic
from raysynth.storage.tables import SPLITS, count_rows, read_table, split_files
from tests.datasets.test_folder import balanced_rows, write_folder
from tests.report.made_run import GROUPS

MINIATURE = [
    "name=mini",
    "dataset.train_images=160",
    "dataset.validation_images=40",
    "dataset.test_images=40",
    "dataset.severity=0.8",
    "clustering.max_k=2",
    "clustering.min_size=10",
    "finetune.steps=4",
    "finetune.batch_size=4",
    "finetune.checkpoint_steps=2",
    "synthesis.images_per_group=16",
    "synthesis.steps=2",
    "synthesis.batch_size=8",
    "classifier.steps=8",
    "classifier.seeds=2",
    "references.seeds=2",
    "references.steps=8",
    "references.weight_decays=[0.01]",
    "references.names=[erm, resampling, erm_balanced_head]",
    "search.trials=2",
    "search.steps=[4, 8]",
]


USUAL = [name for name in FOLDERS if name not in ("grouping", "audit")]
"""Stages of a run whose groups are the data set's own, and that audits nothing."""


def miniature(folder: Path, *more: str):
    return load_config(None, [f"storage_path={folder}", *MINIATURE, *more])


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["base.name=/nowhere/model"], ModelError, "/nowhere/model"),
        (["resources.workers=4000"], ConfigError, "asks for 4000 CPUs"),
        (
            ["clustering.k=30", "dataset.severity=0.9"],
            DataError,
            "fewer training images than clusters",
        ),
        (["dataset.name=folder", "dataset.path=/nowhere"], DataError, "is not a folder"),
        (
            ["dataset.pair=[shirt, dress]", "dataset.train_images=4000"],
            DataError,
            "too few shipped",
        ),
        (["classifier.backbone=/nowhere/resnet"], ModelError, "no config.json"),
        (["synthesis.solver=ddim"], ConfigError, "synthesis.solver"),
        (
            ["dataset.validation_images=4"],
            DataError,
            r"fewer than 2 validation image.* got pullover/grass: 1, .* at least 2 of every",
        ),
        (["dataset.train_images=20000"], DataError, "too few shipped"),
        (["base.clip=/nope"], ModelError, "base.clip: no folder"),
        (["clustering.encoder=dinov2"], ModelError, "clustering.encoder"),
        (["clustering.k={9: 2}"], ConfigError, "clustering.k"),
        (["finetune.overrides={0-2: {steps: 3}}"], ConfigError, "no adapter 0-2; .* of 0-0, 0-1,"),
    ],
)
def test_what_cannot_work_is_refused_before_ray_starts(tmp_path, overrides, error, said):
    config = miniature(tmp_path, *overrides)
    with pytest.raises(error, match=said):
        preflight(config)
    if not overrides[0].startswith("resources"):
        with pytest.raises(error, match=said):
            plan_run(config)


def test_a_plan_does_not_ask_what_this_machine_has(tmp_path):
    many = ["resources.workers=4000", "resources.gpus_per_worker=1", "search.gpus_per_trial=1"]
    assert plan_run(miniature(tmp_path, *many, "resources.address=10.0.0.5:6379")).generators


def test_embedded_models_with_other_images_are_warned_of(tmp_path):
    folder = ["dataset.name=folder", f"dataset.path={tmp_path}"]
    (said,) = warnings_of(load_config(None, folder))
    assert "base.name and base.clip: the embedded models know ten kinds of garments" in said
    (said,) = warnings_of(load_config(None, [*folder, "base.name=owner/model"]))
    assert said.startswith("base.clip: the embedded")
    assert not warnings_of(load_config(None, [*folder, "base.name=a/b", "base.clip=a/c"]))
    assert not warnings_of(load_config())


def test_tiny_images_for_a_network_of_large_ones_are_warned_of():
    chosen = "classifier.backbone=efficientnet_lite0"
    (said,) = warnings_of(load_config(None, [chosen]))
    assert said.startswith(f"{chosen}: would see images of 32 x 32") and "image_size=96" in said
    assert not warnings_of(load_config(None, [chosen, "classifier.image_size=96"]))


def test_a_lender_of_another_label_is_warned_of_where_the_word_is_strange(tmp_path):
    place = ["dataset.name=folder", f"dataset.path={tmp_path}", "finetune.min_images=8"]
    counts, few = np.array([90, 5, 40, 90]), np.array([90, 90, 90, 90])
    strange = Groups(("zero", "one"), ("a", "b"), ("zero", "one"), ("a", "b"))
    (said,) = strange_lenders(load_config(None, place), strange, counts)
    assert said.startswith("zero/b (5 training image(s), finetune.min_images=8) by that of one/b:")
    assert not strange_lenders(load_config(None, place), strange, few)
    for same_label_or_known_word in (
        [*place, "synthesis.lender=label"],
        [*place, "generator=vanilla"],
        [*place, "base.name=owner/model"],
    ):
        assert not strange_lenders(load_config(None, same_label_or_known_word), strange, counts)
    assert not strange_lenders(load_config(None, place), GROUPS, counts), "it knows garments"


def test_few_images_to_measure_on_are_counted_and_warned_of(tmp_path, capsys):
    plan = plan_run(miniature(tmp_path, "dataset.validation_images=8"))
    (group, *_) = next(iter(plan.generators.values())).groups
    assert (group.validation, group.test) == (2, 10)
    few = [said for said in plan.assumptions if said.startswith("dataset: 4 group(s)")]
    assert [said.split(":")[1][:53] for said in few] == [
        " 4 group(s) have fewer than 20 validation images, pul",
        " 4 group(s) have fewer than 20 test images, pullover/",
    ]
    print_plan(plan, Console(width=120))
    row = next(line for line in capsys.readouterr().out.splitlines() if "pullover/grass" in line)
    assert row.split()[1:4] == ["64", "2", "10"]
    assert not few_measured({name: np.full(4, 20) for name in SPLITS}, GROUPS)


def test_a_run_prints_its_warning_once(tmp_path, ray_local, capsys):
    rows = balanced_rows(("coat", "bag"), ("grass", "gravel"), each=16)
    data = ["dataset.name=folder", f"dataset.path={write_folder(tmp_path / 'data', rows)}"]
    config = miniature(tmp_path, *data, "dataset.severity=original")
    run_pipeline(config, until="ingest")
    assert capsys.readouterr().err.count("dataset.name=folder is strange to them") == 1


def test_a_base_folder_without_a_unet_is_refused(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="unet"):
        preflight(miniature(tmp_path, f"base.name={tmp_path}"))


def test_an_unknown_stage_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="until"):
        run_pipeline(miniature(tmp_path), until="training")


def test_the_driver_imports_no_library_that_only_loads_models():
    """Seconds of a run in which nothing else can be done; the workers need them."""
    rooms = ("clustering", "finetune", "synthesis", "fidelity", "search", "classify", "report")
    stages = ", ".join(f"raysynth.{room}.stage" for room in rooms)
    code = f"import sys, {stages}; print(*{{'diffusers', 'transformers'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_driver_of_a_generation_imports_no_torch():
    """90 MB, beside a plan of a million images that takes fewer."""
    code = "import sys, raysynth.synthesis.stage as stage; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_local) -> Run:
    """One miniature run of all stages, shared by the tests of its outputs.

    One process where a stage may have two: each takes ten seconds of a core to start here.
    """
    alone = ("resources.workers=1", "clustering.actors=1", "synthesis.actors=1")
    return run_pipeline(miniature(tmp_path_factory.mktemp("runs"), *alone))


def test_every_stage_leaves_its_folder_and_its_record(finished):
    manifest = finished.manifest()
    assert list(manifest["stages"]) == USUAL
    for name, folder in ((each, FOLDERS[each]) for each in USUAL):
        outputs = manifest["stages"][name]["outputs"]
        assert outputs and all(path.startswith(f"{folder}/") for path in outputs)
        assert all(os.path.exists(finished.path(path)) for path in outputs)


def test_the_log_tells_of_every_stage(finished):
    files = sorted(Path(finished.path("log")).iterdir())
    assert [file.name[:5] for file in files] == [f"{n:04d}-" for n in range(1, len(files) + 1)]
    lines = files[0].read_text().splitlines()
    begun = [line.split()[2] for line in lines if line.endswith(" begins")]
    assert set(begun) >= set(USUAL)
    for name in USUAL:
        assert any(f" {name} " in line and "seconds=" in line for line in lines), name
    assert lines[-1].endswith("the run is done")


def test_results_have_every_method_and_number(finished):
    results = json.loads(Path(finished.path("report/results.json")).read_text())
    methods = {"erm", "resampling", "erm_balanced_head", "raysynth"}
    assert methods <= set(results["methods"])
    for name in methods:
        for key in ("wga", "aga", "weighted"):
            number = results["methods"][name][key]
            assert len(number["seeds"]) == 2 and 0 <= number["mean"] <= 1
        assert results["methods"][name]["wga"]["mean"] <= results["methods"][name]["aga"]["mean"]
    assert results["severity"] == 0.8 and results["config_digest"] == finished.config.digest()
    assert set(results["timings"]) >= set(USUAL) - {"report"}
    assert "<html" in Path(finished.path("report/index.html")).read_text()


def test_synthetic_table_is_complete_and_selection_balanced(finished):
    synthetic = read_table(finished.path("synthetic")).to_pandas()
    assert synthetic["id"].is_unique and len(synthetic) == 64
    selection = pd.read_parquet(finished.path("selection/selection.parquet"))
    # 75 % of 16 are 12, of those that are no copies up to three fewer.
    sizes = selection[selection.kept].groupby("group").size().tolist()
    assert sizes == [sizes[0]] * 4 and 9 <= sizes[0] <= 12
    assert not (selection["kept"] & selection["copy"]).any()


def test_the_classifier_loads_outside_raysynth(finished):
    import torch
    from transformers import AutoModelForImageClassification

    import raysynth.networks.pretrained  # noqa: F401  (registers the small network)

    folder = finished.path("classifier/model")
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 2)
    assert "pullover" in Path(folder, "README.md").read_text()


def test_nothing_changed_means_nothing_runs(finished):
    before = finished.manifest()
    start = time.monotonic()
    run_pipeline(finished.config)
    assert time.monotonic() - start < 5
    assert finished.manifest() == before


def test_a_changed_selection_keeps_the_images(finished):
    before = finished.manifest()["stages"]
    config = finished.config.model_copy(
        update={"selection": finished.config.selection.model_copy(update={"alpha": 1.0})}
    )
    after = run_pipeline(config, until="selection").manifest()["stages"]
    assert after["synthesis"] == before["synthesis"]
    assert after["selection"]["digest"] != before["selection"]["digest"]


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_ids(tmp_path):
    overrides = [*MINIATURE, "synthesis.images_per_group=200", "search.trials=0"]
    ids = []
    for kill in (False, True):
        folder = tmp_path / ("killed" if kill else "whole")
        command = [
            sys.executable,
            "-m",
            "raysynth",
            "run",
            f"storage_path={folder}",
            *overrides,
        ]
        if kill:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            shards = folder / "mini/.partial"
            while not list(shards.glob("synthesis-*/**/*.parquet")) and process.poll() is None:
                time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ids.append(sorted(read_table(str(folder / "mini/synthetic"))["id"].to_pylist()))
    assert ids[0] == ids[1] and len(set(ids[0])) == 800


def test_images_of_several_sizes_are_refused_before_anything_is_made_of_them(tmp_path, ray_local):
    folder = write_folder(tmp_path / "data", balanced_rows(each=16))
    Image.new("RGB", (12, 9)).save(folder / "images/cat-day-3.png")
    place = ["dataset.name=folder", f"dataset.path={folder}", "resources.workers=1"]
    config = miniature(tmp_path / "runs", *place, "dataset.severity=original")
    assert (
        run_pipeline(config, until="ingest").manifest()["stages"]["ingest"]["facts"]["rows"] == 64
    )
    with pytest.raises(DataError, match=r"sides are 8 to 12 pixels.*classifier\.image_size=<pix"):
        run_pipeline(config)
    check_sides(load_config(None, ["classifier.image_size=16"]), {"sides": [8, 12]})
    check_sides(config, {})
    check_sides(config, {"sides": [32, 32]})


def count_images(work: Work) -> dict[str, int]:
    """The build of a stage that only a test has."""
    rows = count_rows(work.path("ingest"), split_files(work.path("ingest"), "train"))
    write_atomic(f"{work.folder}/counted", str(rows).encode())
    return {"rows": 1, "counted": rows}


def test_a_stage_is_its_declaration_and_a_word_in_the_method(tmp_path, ray_local, monkeypatch):
    build = f"{__name__}:count_images"
    own = Stage("counted", "counts", build, ("ingest",), lambda config: {"seed": config.seed})
    monkeypatch.setattr(method, "METHOD", (INGEST, own))
    folders = {"ingest": "real", "counted": "counts"}
    for module in (method, pipeline):
        monkeypatch.setattr(module, "FOLDERS", folders)
    monkeypatch.setattr(pipeline, "WHOLE", replace(pipeline.WHOLE, folders=folders))
    config = miniature(tmp_path)
    counted = run_pipeline(config).manifest()["stages"]["counted"]
    assert counted["facts"] == {"rows": 1, "counted": 160}
    assert (tmp_path / "mini/counts/counted").read_text() == "160"
    assert run_pipeline(config, until="counted").manifest()["stages"]["counted"] == counted
    with pytest.raises(ConfigError, match="expected one of ingest, counted"):
        run_pipeline(config, until="report")


@pytest.mark.slow
def test_three_labels_by_two_attributes_from_a_folder(tmp_path, ray_local):
    rows = balanced_rows(("coat", "shirt", "bag"), ("grass", "gravel"), each=16)
    folder = write_folder(tmp_path / "data", rows)
    config = miniature(
        tmp_path / "runs",
        "dataset.name=folder",
        f"dataset.path={folder}",
        "dataset.image_size=32",
        "dataset.severity=original",
        "finetune.min_images=4",
    )
    run = run_pipeline(config, until="selection")
    synthetic = read_table(run.path("synthetic")).to_pandas()
    assert synthetic.groupby("group").size().tolist() == [16] * 6
    assert set(synthetic["prompt"]) >= {"a photo of a sks bag on gravel"}
