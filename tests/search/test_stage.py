"""The search stage: a real Tune experiment of three tiny trials."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGKILL

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from raysynth.cluster.session import Session
from raysynth.progress import Progress
from raysynth.search.stage import run_search
from raysynth.training.two_stage import plan_of
from tests.networks.test_build import tiny_transformer
from tests.training.test_units import Said
from tests.training.tiny import tiny_config, tiny_groups, write_tiny_run


def test_trials_and_the_best_of_them(ray_local, tmp_path):
    folders = write_tiny_run(str(tmp_path))
    work = tmp_path / "work"
    config = tiny_config("search.ratios=[0.0, 0.25, 0.5]")
    facts = run_search(config, *folders.values(), tiny_groups(), str(work), Progress())
    assert facts["rows"] == 3 and facts["failed"] == {}
    trials = pq.read_table(work / "trials.parquet").to_pandas()
    assert set(trials["ratio"]) == {0.0, 0.25, 0.5}
    assert trials["validation_wga"].between(0, 1).all() and (trials["seconds"] > 0).all()
    best = json.loads((work / "best.json").read_text())
    top = trials.sort_values(["validation_wga", "validation_aga"]).iloc[-1]
    assert list(best["validation"].values()) == [top["validation_wga"], top["validation_aga"]]
    heads = trials.explode("heads")["heads"].tolist()
    assert len(heads) == 3 * len(config.search.head_weight_decays)
    assert max(head["validation_wga"] for head in heads) == top["validation_wga"]
    assert best["parameters"]["head_weight_decay"] in config.search.head_weight_decays
    row = trials.set_index("trial").loc[best["trial"]]
    assert row["validation_wga"] == top["validation_wga"]
    assert best["parameters"]["ratio"] == row["ratio"]


@pytest.mark.slow
def test_an_experiment_that_cannot_be_read_is_named_and_made_anew(ray_local, tmp_path):
    folders = write_tiny_run(str(tmp_path))
    (tmp_path / "work" / "tune").mkdir(parents=True)
    (tmp_path / "work" / "tune" / "tuner.pkl").write_bytes(b"")
    console, config = Console(file=io.StringIO(), width=400), tiny_config("search.trials=1")
    work = str(tmp_path / "work")
    facts = run_search(config, *folders.values(), tiny_groups(), work, Progress(console))
    assert facts["rows"] == 1 and "cannot be gone on with" in console.file.getvalue()


def test_weights_of_real_images_are_tried_kept_and_read_again(ray_local, tmp_path):
    folders = write_tiny_run(str(tmp_path))
    config = tiny_config(
        "classifier.schedule=joint",
        "search.ratios=[0.5]",
        "search.trials=2",
        "search.real_shares=[0.2, 0.9]",
    )
    work = tmp_path / "work"
    run_search(config, *folders.values(), tiny_groups(), str(work), Progress())
    rows = pq.read_table(work / "trials.parquet").to_pylist()
    assert {row["real_share"] for row in rows} == {0.2, 0.9}
    best = json.loads((work / "best.json").read_text())["parameters"]
    won = max(rows, key=lambda row: (row["validation_wga"], row["validation_aga"]))
    assert best["real_share"] == won["real_share"]
    (phase,) = plan_of(best, config.classifier).phases
    assert (phase.images, phase.real_share) == ("joint", best["real_share"])


def test_heads_are_fitted_to_synthetic_images_as_well(ray_local, tmp_path):
    """Every share with every weight decay, where there are synthetic images."""
    folders = write_tiny_run(str(tmp_path))
    config = tiny_config(
        "search.ratios=[0.0, 0.5]", "search.trials=2", "search.head_real_shares=[1.0, 0.5]"
    )
    run_search(config, *folders.values(), tiny_groups(), str(tmp_path / "work"), Progress())
    rows = pq.read_table(tmp_path / "work" / "trials.parquet").to_pylist()
    shares = {row["ratio"]: [head["head_real_share"] for head in row["heads"]] for row in rows}
    count = len(config.search.head_weight_decays)
    assert shares[0.0] == [1.0] * count and sorted(shares[0.5]) == [0.5] * count + [1.0] * count
    best = json.loads((tmp_path / "work" / "best.json").read_text())["parameters"]
    assert best["head_real_share"] in (0.5, 1.0)


def test_other_schedules_are_searched_with_their_one_head(ray_local, tmp_path):
    folders = write_tiny_run(str(tmp_path))
    work = tmp_path / "work"
    config = tiny_config("search.trials=2", "classifier.schedule=full")
    facts = run_search(config, *folders.values(), tiny_groups(), str(work), Progress())
    assert facts["rows"] == 2 and facts["best"]["parameters"]["head_weight_decay"] == 0.0
    rows = pq.read_table(work / "trials.parquet").to_pylist()
    assert all(len(row["heads"]) == 1 for row in rows)
    assert max(row["reached"] for row in rows) == config.classifier.full_steps


def test_no_trials_takes_the_classifier_section(tmp_path):
    config = tiny_config("search.trials=0", "classifier.ratio=0.125")
    facts = run_search(config, "-", "-", "-", tiny_groups(), str(tmp_path), Progress())
    assert facts["rows"] == 0
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["parameters"]["ratio"] == 0.125
    assert pq.read_table(tmp_path / "trials.parquet").num_rows == 0


def test_trials_share_processes_and_the_encoder_of_all_heads(ray_local, tmp_path):
    folders = write_tiny_run(str(tmp_path))
    config = tiny_config("search.trials=4", "search.concurrent=1")
    run_search(config, *folders.values(), tiny_groups(), str(tmp_path / "work"), Progress())
    results = [
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in (tmp_path / "work" / "tune").glob("trial-*/result.json")
    ]
    assert len(results) == 4
    assert len({report["pid"] for reports in results for report in reports}) == 1
    keys = [f"{decay!r}:1.0" for decay in config.search.head_weight_decays]
    assert all(list(report["heads"]) == keys for reports in results for report in reports)


def test_a_frozen_encoder_is_searched_by_its_heads_alone(ray_local, tmp_path):
    folder = tiny_transformer("resnet", str(tmp_path / "resnet"))
    config = tiny_config(f"classifier.backbone={folder}", "search.steps=[0, 0]")
    work = tmp_path / "work"
    folders = write_tiny_run(str(tmp_path))
    facts = run_search(config, *folders.values(), tiny_groups(), str(work), Progress())
    assert facts["rows"] == 1 and facts["best"]["parameters"]["steps"] == 0
    (row,) = pq.read_table(work / "trials.parquet").to_pylist()
    assert [head["head_weight_decay"] for head in row["heads"]] == list(
        config.search.head_weight_decays
    )
    assert row["validation_wga"] == max(head["validation_wga"] for head in row["heads"])
    assert row["ratio"] == 0.0

    mixed = tiny_config(
        f"classifier.backbone={folder}", "search.steps=[0, 0]", "search.head_real_shares=[0, 1]"
    )
    run_search(mixed, *folders.values(), tiny_groups(), str(tmp_path / "mixed"), Progress())
    (row,) = pq.read_table(tmp_path / "mixed" / "trials.parquet").to_pylist()
    assert row["ratio"] == mixed.classifier.ratio
    assert {head["head_real_share"] for head in row["heads"]} == {0.0, 1.0}


DRIVER = """
import signal, sys
from raysynth.cluster.session import Session
from raysynth.progress import Progress
from raysynth.search.stage import run_search
from tests.training.tiny import tiny_config, tiny_groups
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell passes on "ignored"
root = sys.argv[1]
config = tiny_config("search.trials=4", "search.concurrent=1", "search.steps=[400, 400]")
with Session(config, root) as session:
    session.start()
    run_search(
        config, f"{root}/real", f"{root}/synthetic", f"{root}/selection", tiny_groups(),
        f"{root}/work", Progress(),
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [SIGKILL, SIGINT])
def test_a_stopped_search_goes_on(ray_local, tmp_path, number):
    write_tiny_run(str(tmp_path))
    environment = os.environ | {"TUNE_GLOBAL_CHECKPOINT_S": "1"}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    tune_folder = tmp_path / "work" / "tune"
    deadline = time.time() + 120
    while time.time() < deadline and driver.poll() is None:
        results = list(tune_folder.glob("trial-*/result.json"))
        begun = sum(file.stat().st_size > 0 for file in results)
        if begun > 1 and list(tune_folder.glob("experiment_*")):  # so that the first has ended
            break
        time.sleep(0.2)
    assert driver.poll() is None, "the driver ended before it could be stopped"
    time.sleep(1.5)
    driver.send_signal(number)
    driver.wait()
    assert not (tmp_path / "work" / "best.json").exists()
    before = set(tune_folder.glob("run_trial*"))
    config = tiny_config("search.trials=4", "search.concurrent=1", "search.steps=[400, 400]")
    with Session(config, str(tmp_path)):
        pass  # stops the Ray of the killed driver
    paths = [str(tmp_path / name) for name in ("real", "synthetic", "selection", "work")]
    said = Said()
    facts = run_search(config, *paths[:3], tiny_groups(), paths[3], said)
    assert facts["rows"] == 4
    assert next(done for done, total in said.counts if total) >= 1, "it begins where it was"
    assert before <= set(tune_folder.glob("run_trial*"))  # the same experiment went on
