"""`raysynth benchmark`: cells, shared work, the table; `generator: auto` as one of its rows."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError
from rich.console import Console

from raysynth.benchmark.cells import plan_cells
from raysynth.benchmark.choices import choices_markdown, choose, with_choices
from raysynth.benchmark.differences import comparisons, differences_json, differences_markdown
from raysynth.benchmark.driver import Board, _run_cells, cells_to_run, run_benchmark
from raysynth.benchmark.plot import wga_plot
from raysynth.benchmark.publish import publish
from raysynth.benchmark.table import entries, markdown, read_known, read_records
from raysynth.benchmark.titles import reference_titles
from raysynth.compare.read import runs_below
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.datasets.contents import folder_digest
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import ConfigError, StageError
from raysynth.jobs.status import in_words, read_status
from raysynth.progress import Progress
from raysynth.storage.files import write_atomic
from tests.test_pipeline import miniature
from tests.training.test_units import Said

ROWS = {
    "vanilla": {"generator": "vanilla"},
    "shared": {"generator": "shared"},
    "auto": {"generator": "auto", "candidates": ["vanilla", "shared"]},
}


ROOT = Path(__file__).parents[2]
FOLDER = DatasetConfig(name="folder", path="/data/birds")


def planned(folder, rows=ROWS, **settings) -> Config:
    config = miniature(folder, "name=table")
    values = {"rows": rows, "severities": (0.8,), "seeds": 1, **settings}
    benchmark = type(config.benchmark).model_validate(values)
    return config.model_copy(update={"benchmark": benchmark})


def test_cells_share_what_their_rows_do_not_change(tmp_path):
    cells = plan_cells(planned(tmp_path, severities=(0.7, 0.8), seeds=2))
    assert len(cells) == 12 and len({cell.name for cell in cells}) == 12
    by_name = {(c.row, c.severity, c.seed): c.stages for c in cells}
    vanilla, shared = by_name["vanilla", 0.8, 0], by_name["shared", 0.8, 0]
    same = {name for name in vanilla if vanilla[name] == shared[name]}
    assert same == {"ingest", "clustering", "references"}
    assert not set(vanilla.values()) & set(by_name["vanilla", 0.7, 0].values())
    auto = by_name["auto", 0.8, 0]
    assert auto["synthesis/shared"] == shared["synthesis"]
    assert auto["synthesis"] not in (shared["synthesis"], vanilla["synthesis"])


def test_a_row_may_be_of_some_severities_alone(tmp_path):
    severities: tuple[float, ...] = (0.7, 0.8)
    everywhere = {cell.name: cell for cell in plan_cells(planned(tmp_path, severities=severities))}
    own = {"vanilla": (0.8,)}
    cells = plan_cells(planned(tmp_path, severities=severities, only_at=own))
    assert {cell.name for cell in cells} == {*everywhere} - {"vanilla-0.7-0"}
    assert all(cell.stages == everywhere[cell.name].stages for cell in cells)
    with pytest.raises(ConfigError, match=r"only_at names 'lora'; expected rows .*vanilla"):
        plan_cells(planned(tmp_path, only_at={"lora": (0.8,)}))
    with pytest.raises(ConfigError, match=r"only_at\.vanilla: 0\.9; expected some .*\(0\.8\)"):
        plan_cells(planned(tmp_path, only_at={"vanilla": (0.9, 0.8)}))


@pytest.mark.parametrize(
    "name", sorted(file.stem for file in (ROOT / "benchmarks/results").glob("outfits*.csv"))
)
def test_the_committed_records_are_of_the_committed_configuration(name):
    """A knob that comes later must not change what a stage without it is called."""
    cells = plan_cells(load_config(str(ROOT / f"configs/benchmarks/{name}.yaml")))
    known = read_known([str(ROOT / f"benchmarks/results/{name}.csv")])
    assert set(known["cell"]) <= {
        each.digest for cell in cells for each in (cell, cell.without_references)
    }


def test_a_plan_reads_a_folder_once_and_the_next_plan_again(tmp_path, monkeypatch):
    config = planned(tmp_path, severities=("original",), seeds=2)
    dataset = DatasetConfig(name="folder", path=str(tmp_path / "birds"))
    config = config.model_copy(update={"dataset": dataset})
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/metadata.csv").write_text("one")
    reads = []

    def counted(path):
        reads.append(path)
        return folder_digest(path)

    monkeypatch.setattr("raysynth.datasets.contents.folder_digest", counted)
    cells = plan_cells(config)
    assert len(cells) == 6 and cells[0].without_references.digest != cells[0].digest
    assert reads == [dataset.path]
    (tmp_path / "birds/metadata.csv").write_text("two")
    assert plan_cells(config)[0].stages["ingest"] != cells[0].stages["ingest"]


def test_no_row_is_stopped_for_its_images_unless_it_asks_for_it(tmp_path):
    asked = {"generator": "vanilla", "selection.on_unfaithful": "stop"}
    one, other = plan_cells(planned(tmp_path, {"vanilla": ROWS["vanilla"], "strict": asked}))
    assert one.config.selection.on_unfaithful == "go_on"
    assert other.config.selection.on_unfaithful == "stop" and one.digest == other.digest


def test_two_generators_of_one_model_train_it_once(tmp_path):
    rows = {name: {"generator": name} for name in ("shared", "edit")}
    shared, edit = plan_cells(planned(tmp_path, rows))
    assert shared.stages["finetune"] == edit.stages["finetune"]
    assert shared.stages["synthesis"] != edit.stages["synthesis"]


def test_no_two_cells_build_one_stage_at_once(tmp_path):
    """A generator's images are the same stage in its own cell and among auto's candidates."""
    shared, auto = plan_cells(planned(tmp_path, {name: ROWS[name] for name in ("shared", "auto")}))
    images = f"synthesis-{shared.stages['synthesis']}"
    assert images in shared.folders & auto.folders
    board = Board("", [shared, auto])
    board.running["shared"] = board.next()
    assert board.running == {"shared": shared} and board.next() is None
    board.done = set(shared.folders - {f"classification-{shared.digest}"})
    assert board.missing(auto) == auto.folders - shared.folders
    assert board.next() == auto


def test_time_left_is_what_other_stages_of_a_kind_took(tmp_path):
    cells = plan_cells(planned(tmp_path, {name: ROWS[name] for name in ("vanilla", "shared")}))
    board = Board("", cells)
    first, second = cells
    board.done = set(first.folders)
    board.seconds = dict.fromkeys(first.folders, 10.0)
    board.waiting = [second]
    left = board.counts(2, {}, 1)
    assert (left["done"], left["waiting"]) == (1, 1)
    assert left["left"] == 10.0 * len(second.folders - first.folders) > 0
    assert board.left(5) == board.left(1), "one cell is not two"
    del board.seconds[next(name for name in first.folders if name.startswith("synthesis-"))]
    assert board.left(1) is None


def test_a_wrong_row_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"benchmark row 'typo'.*\n.*selection.alhpa: unknown"):
        plan_cells(planned(tmp_path, {"typo": {"selection.alhpa": 1}}))
    with pytest.raises(ConfigError, match=r"benchmark\.rows is empty"):
        plan_cells(planned(tmp_path, {}))
    with pytest.raises(ConfigError, match=r"baseline is 'vanila'; expected one of .*vanilla, sha"):
        plan_cells(planned(tmp_path, baseline="vanila"))
    for name in ("erm", "self", "clip_balanced_head"):
        with pytest.raises(ConfigError, match=rf"rows: '{name}' is the name of .* {name}-ours"):
            plan_cells(planned(tmp_path, {"vanilla": {}, name: {}}))
    with pytest.raises(ValidationError, match="pattern"):
        planned(tmp_path, {"erm (pretrained)": {}})
    for name, rows, said in (
        ("best", ("vanilla", "lora"), r"by_validation\.best names 'lora'; expected .*shared"),
        ("auto", ("vanilla", "shared"), r"by_validation\.auto is the name of a row"),
        ("erm", ("vanilla", "shared"), r"'erm' is the name of"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan_cells(planned(tmp_path, by_validation={name: rows}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", 3, r"seed cannot differ .* `benchmark\.seeds`"),
        ("dataset.severity", 0.9, r"dataset\.severity cannot differ .* `benchmark\.severities`"),
        ("dataset", {"severity": 0.9}, r"dataset\.severity cannot differ"),
        ("dataset.severity.x", 1, r"dataset\.severity\.x cannot differ"),
        ("name", "other", "name cannot differ .* rename the row"),
        ("storage_path", "/other", "storage_path cannot differ"),
        ("resources", {"address": "local"}, r"resources\.address cannot differ"),
        ("benchmark.seeds", 2, r"benchmark\.seeds cannot differ"),
        ("benchmark", {"seeds": 2}, r"benchmark\.seeds cannot differ"),
        ("benchmark", {"x" * 5000: 2}, r"more\) cannot differ"),
        (f"generator.{'x' * 5000}", 1, "not a section"),
        ("generator.x", 1, r"generator\.x: generator is a value \('vanilla'\)"),
        ("classifier", 7, "classifier: Input should be"),
        ("classifier", {"stepz": 7}, r"classifier\.stepz: unknown key\. Did you mean `steps`"),
    ],
)
def test_what_a_row_cannot_change_is_refused(tmp_path, key, value, said):
    config = planned(tmp_path, {"odd": {key: value}}).model_copy(update={"generator": "vanilla"})
    with pytest.raises(ConfigError, match=f"(?s)benchmark row 'odd'.*{said}") as error:
        plan_cells(config)
    assert len(str(error.value)) < 1000


def test_a_rows_section_is_merged_and_a_fields_mapping_is_a_value(tmp_path):
    steps, k = {"0-0": {"steps": 9}}, {"0": 2, "coat/grass": 1}
    rows = {
        "dotted": {"classifier.steps": 7, "finetune.overrides": steps},
        "nested": {"classifier": {"steps": 7}, "finetune": {"overrides": steps}},
        "mapping": {"clustering.k": k, "dataset": {"label_words": {"coat": "parka"}}},
        "later": {"finetune.overrides": steps, "finetune.overrides.0-0.steps": 11},
    }
    config = planned(tmp_path, rows, severities=(0.7, 0.8))
    cells = {(cell.row, cell.severity): cell for cell in plan_cells(config)}
    dotted, nested = cells["dotted", 0.8], cells["nested", 0.8]
    assert dotted.config == nested.config and dotted.digest == nested.digest
    assert nested.config.classifier.seeds == config.classifier.seeds == 2  # not the default's
    assert nested.config.finetune.overrides["0-0"].steps == 9
    mapping = cells["mapping", 0.7].config
    assert mapping.clustering.k == k and mapping.dataset.label_words == {"coat": "parka"}
    assert mapping.dataset.severity == 0.7
    assert cells["later", 0.8].config.finetune.overrides["0-0"].steps == 11
    assert steps == {"0-0": {"steps": 9}}


@pytest.mark.slow
def test_rows_become_a_table_and_what_is_there_is_not_done_again(ray_local, tmp_path):
    config = planned(tmp_path)
    finished = run_benchmark(config)
    assert not finished.failed
    folder = publish(finished, "raysynth benchmark")
    table = json.loads((tmp_path / "table/table.json").read_text())
    assert set(ROWS) < set(table) and table["erm"]["kind"] == "reference"
    records = pd.read_csv(f"{folder}/records.csv")
    assert records.groupby("row").size().loc["erm"] == 2  # seeds of one stage, not of three cells
    assert (tmp_path / "table/wga.png").stat().st_size > 10_000
    chosen = json.loads(next(tmp_path.glob("stages/synthesis-*/.choice.json")).read_text())
    assert set(chosen["chosen"].values()) <= {"vanilla", "shared"}

    stages = sorted(path.name for path in (tmp_path / "stages").iterdir())
    more = planned(tmp_path, ROWS | {"alpha": {"generator": "shared", "selection.alpha": 1.0}})
    assert not run_benchmark(more).failed
    added = {path.name for path in (tmp_path / "stages").iterdir()} - set(stages)
    kinds = {name.split("-")[0] for name in added if name.endswith(".json")}
    assert kinds == {"selection", "fidelity", "search", "classification"}


@pytest.mark.slow
def test_a_failing_cell_leaves_the_others(ray_local, tmp_path):
    rows = {"vanilla": {"generator": "vanilla"}, "none": {"selection.rule": "threshold"}}
    rows["none"] |= {"selection.threshold": 1.0, "generator": "vanilla"}
    finished = run_benchmark(planned(tmp_path, rows))
    assert list(finished.failed) == ["none-0.8-0"] and "threshold" in finished.failed["none-0.8-0"]
    publish(finished, "raysynth benchmark")
    assert "Failed cells" in (tmp_path / "table/table.md").read_text()
    lines = in_words(read_status(f"{tmp_path}/table"))
    assert lines[2] == "cells     1 of 2 done (50 %), 1 failed"
    assert lines[3].startswith("failed    none-0.8-0: ")
    assert {run.name for run in runs_below(f"{tmp_path}/table")} == {
        "none-0.8-0",
        "vanilla-0.8-0",
    }


def test_cells_know_the_cluster_of_their_driver(ray_local, tmp_path, monkeypatch):
    """The variable is the driver's; the data set is nowhere, so that the cell ends early."""
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    config = planned(tmp_path, {"vanilla": {"generator": "vanilla"}}, severities=("original",))
    config = config.model_copy(update={"dataset": FOLDER})
    [cell] = plan_cells(config)
    board = Board(f"{tmp_path}/stages", [cell])
    name = f"ingest-{cell.stages['ingest']}"
    write_atomic(f"{tmp_path}/stages/{name}/a", b"four")
    record = {"digest": cell.stages["ingest"], "sizes": {"a": 4}}
    write_atomic(f"{tmp_path}/stages/{name}.json", json.dumps(record).encode())
    said = Said()
    failed = _run_cells(config, str(tmp_path), board, said, 1)
    assert said.counts[0] == (1, len(cell.folders)), "a benchmark begins where it was"
    assert "/data/birds" in failed[cell.name].reason and failed[cell.name].code == 2
    assert "/data/birds" in board.told["failed"].pop(cell.name)
    counts = {"total": 1, "done": 0, "at_work": [], "waiting": 0, "failed": {}, "left": 0.0}
    assert board.told == counts
    written = yaml.safe_load((tmp_path / f"runs/{cell.name}/config.yaml").read_text())
    assert written["resources"]["address"] == "10.0.0.1:6379"


def test_a_damaged_stage_is_not_there(tmp_path):
    """Cut after it was recorded; mended, it counts at the next look."""
    board, cut = Board(str(tmp_path), []), {}
    for name in ("ingest-1", "ingest-2", "ingest-3", "old-4", "old-5"):
        file = tmp_path / name / "train.parquet"
        write_atomic(str(file), b"four")
        cut[name] = file
        sizes = {"sizes": {"train.parquet": 4}} if name.startswith("ingest") else {}
        write_atomic(f"{tmp_path}/{name}.json", json.dumps({"digest": name[-1], **sizes}).encode())
    cut["ingest-1"].write_bytes(b"fou")
    (tmp_path / "ingest-2.json").write_text("{")
    shutil.rmtree(tmp_path / "old-5")
    board.look()
    assert board.done == {"ingest-3", "old-4"}
    cut["ingest-1"].write_bytes(b"four")
    cut["ingest-3"].unlink()  # a run that needs it meets it; looks are every two seconds
    board.look()
    assert board.done == {"ingest-1", "ingest-3", "old-4"}


def key_of(cell) -> tuple:
    """What the reference rows of cells are told apart by."""
    return cell.severity, cell.seed


def recorded(cells, file) -> None:
    """What an earlier part left: two final classifiers of each cell."""
    own = {"uses_validation": False, "validation_wga": 0.8, "aga": 0.9}
    rows = [
        {"row": name, "severity": c.severity, "seed": c.seed, "repetition": 0, "cell": c.digest}
        | own
        | {"wga": 0.7 + 0.1 * (name != c.row), "groups": "{}"}
        | {"kind": "raysynth" if name == c.row else "reference"}
        for c in cells
        for name in (c.row, "erm")
    ]
    pd.DataFrame(rows).to_csv(file, index=False)


def test_recorded_cells_are_in_the_table_and_not_run_again(tmp_path):
    """All of them are recorded here, in two parts, so that Ray is not even started."""
    best = {"best": ("shared", "auto")}
    config = planned(tmp_path, severities=(0.7, 0.8, "original"), seeds=2, by_validation=best)
    config = config.model_copy(update={"dataset": FOLDER})
    cells = plan_cells(config)
    files = [f"{tmp_path}/one.csv", f"{tmp_path}/two.csv"]
    recorded(cells[:7], files[0])
    recorded(cells[7:], files[1])
    benchmark = config.benchmark.model_copy(update={"records": tuple(files)})
    folder = publish(run_benchmark(config.model_copy(update={"benchmark": benchmark})), "command")
    records = pd.read_csv(f"{folder}/records.csv")
    assert records.groupby("row").size().to_dict() == dict.fromkeys([*ROWS, "erm"], 6)
    table = json.loads((tmp_path / "table/table.json").read_text())
    assert table["auto"]["severities"]["original"]["wga"]["mean"] == pytest.approx(0.7)
    assert len(table["best"]["severities"]["0.8"]["wga"]["seeds"]) == 2
    assert "(taken: shared 6 ×)" in " ".join((tmp_path / "table/table.md").read_text().split())
    assert table["erm"]["severities"]["0.7"]["wga"]["seeds"] == pytest.approx([0.8, 0.8])

    # One part alone: the rest is missing in the table, and not run.
    benchmark = config.benchmark.model_copy(update={"records": (files[0],)})
    part = run_benchmark(config.model_copy(update={"benchmark": benchmark}), finished_only=True)
    publish(part, "command")
    assert len(pd.read_csv(f"{folder}/records.csv")) == len(set(map(key_of, cells[:7]))) + 7

    other = plan_cells(planned(tmp_path, {"wide": {"finetune.rank": 64}}))
    assert read_records(other, str(tmp_path / "stages"), read_known(files)).empty


def test_recorded_references_are_not_trained_again(tmp_path):
    """A row that is added on another machine needs neither them nor their stage."""
    cells = plan_cells(planned(tmp_path, seeds=2))
    vanilla, shared, auto = cells[:3]
    recorded([vanilla], f"{tmp_path}/one.csv")
    known = read_known([f"{tmp_path}/one.csv"])
    board = Board("", [])
    assert cells_to_run(cells, board, known) == [
        shared.without_references,
        auto.without_references,
        *cells[3:],
    ]
    assert not shared.without_references.config.references.names
    assert {
        n for n in shared.stages if shared.stages[n] != shared.without_references.stages[n]
    } == {
        "references",
        "classification",
    }
    board.done = {shared.references}  # here they are: the cell is run as it is written
    assert cells_to_run(cells, board, known) == [shared, auto, *cells[3:]]
    board.done = set(shared.without_references.folders)
    assert cells_to_run(cells, board, known) == [auto.without_references, *cells[3:]]

    none = read_known([])  # nothing tells the references: they are trained
    assert cells_to_run(cells, board, none) == cells

    # In another benchmark the row may have had another name.
    recorded([replace(shared.without_references, row="one model")], f"{tmp_path}/two.csv")
    known = read_known([f"{tmp_path}/one.csv", f"{tmp_path}/two.csv"])
    assert cells_to_run(cells, Board("", []), known) == [auto.without_references, *cells[3:]]
    table = read_records(cells, str(tmp_path / "stages"), known)
    assert table["row"].to_list() == ["vanilla", "shared", "erm"]


@pytest.mark.parametrize("value", ["", "nan", "inf", "97.5", "-0.1", "word"])
def test_records_whose_accuracy_is_none_are_refused(tmp_path, value):
    """Left out of a mean over seeds, they would change it in silence."""
    head = "cell,groups,kind,row,uses_validation,severity,validation_wga,seed,repetition,wga,aga"
    row = "c,{},reference,erm,False,0.9,0.5,"
    path = tmp_path / "records.csv"
    path.write_text(f"{head}\n{row}0,0,0.5,0.6\n")
    assert len(read_known([str(path)])) == 1
    path.write_text(f"{head}\n{row}0,0,0.5,0.6\n{row}1,0,{value},0.6\n")
    with pytest.raises(ConfigError, match=r"wga of 1 record\(s\) is no share of 1.*Fix"):
        read_known([str(path)])


def test_references_of_different_settings_are_different_rows(tmp_path):
    """Records of a table that told them apart are read as those of one that did not."""
    rows = {
        "first": {},
        "fewer": {"references.names": ["erm"], "selection.alpha": 0.5},
        "wide": {"classifier.batch_size": 32},
        "wide_too": {"classifier.batch_size": 32, "selection.alpha": 1.0},
        "start": {"classifier.start": "pretrained"},
        "none": {"classifier.batch_size": 16, "references.names": []},
    }
    controls = {"references": {"controls": ["clip_balanced_head"]}}
    config = planned(tmp_path, {row: controls | own for row, own in rows.items()}, seeds=2)
    cells = plan_cells(config)
    titles = reference_titles(cells)
    assert {row: titles.get((row, "erm")) for row in rows} == {
        "first": "erm",
        "fewer": "erm",
        "wide": "erm [wide]",
        "wide_too": "erm [wide]",
        "start": None,
        "none": None,
    }
    assert titles["start", "erm (pretrained)"] == "erm (pretrained)"
    assert {titles[row, "clip_balanced_head"] for row in rows} == {"clip_balanced_head"}
    assert reference_titles(cells[2:])["wide", "erm"] == "erm"

    told = [cell for cell in cells if cell.row in ("first", "wide")]
    recorded(told, f"{tmp_path}/one.csv")
    table = read_records(cells, "none", read_known([f"{tmp_path}/one.csv"]))
    assert table.groupby("row").size().to_dict() == dict.fromkeys(
        ("first", "wide", "erm", "erm [wide]"), 2
    )
    table.to_csv(f"{tmp_path}/two.csv", index=False)
    again = read_records(cells, "none", read_known([f"{tmp_path}/two.csv"]))
    assert again["row"].to_list() == table["row"].to_list()


def test_a_table_of_nothing_says_what_to_run(tmp_path):
    said = io.StringIO()
    display = Progress(Console(file=said, width=200))
    empty = run_benchmark(planned(tmp_path), display, finished_only=True)
    assert "3 cells are missing, none is run" in said.getvalue()
    with pytest.raises(StageError, match=r"none of the \d+ cells .* without --finished"):
        publish(empty, "command")


def test_records_of_something_else_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"benchmark\.records: .*none\.csv cannot be read"):
        read_known([f"{tmp_path}/none.csv"])
    (tmp_path / "other.csv").write_text("row,wga\na,1\n")
    with pytest.raises(ConfigError, match=r"other\.csv lacks aga, cell, groups, kind, repetition"):
        read_known([f"{tmp_path}/other.csv"])


WHOLE = {"row": "a", "kind": "raysynth", "cell": "0" * 16, "groups": "{}", "severity": 0.9}
WHOLE |= {"seed": 0, "repetition": 0, "validation_wga": 0.8, "wga": 0.7, "aga": 0.9}
WHOLE |= {"uses_validation": False, "weighted": 0.8}


@pytest.mark.parametrize(
    ("column", "value"),
    {
        "seed": "one",
        "row": None,
        "kind": "other",
        "uses_validation": "x",
        "severity": "much",
        "weighted": "x",
    }.items(),
)
def test_records_with_a_foreign_cell_are_refused_by_name(tmp_path, column, value):
    pd.DataFrame([WHOLE, WHOLE | {column: value}]).to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(ConfigError, match=rf"r\.csv has .* as {column} in row 2"):
        read_known([f"{tmp_path}/r.csv"])


def test_a_cells_digest_of_digits_only_is_a_text(tmp_path):
    pd.DataFrame([WHOLE]).to_csv(tmp_path / "r.csv", index=False)
    assert read_known([f"{tmp_path}/r.csv"])["cell"].to_list() == ["0" * 16]


def test_intervals_are_over_run_seeds():
    rows = [
        {"row": "a", "kind": "raysynth", "severity": 0.9, "seed": s, "repetition": 0, "wga": w}
        for s, w in enumerate((0.7, 0.8, 0.9))
    ]
    records = pd.DataFrame(rows).assign(aga=0.9, uses_validation=False)
    entry = entries(records, "wga")["a"][0.9]
    assert entry.mean == pytest.approx(0.8) and entry.std == pytest.approx(0.1)
    assert entry.half == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)  # Student's t, 2 degrees
    assert "80.0 ± 24.8" in markdown(records)


def test_mixtures_that_had_fewer_images_than_they_ask_for_are_named():
    own = {"kind": "mixture", "severity": 0.9, "repetition": 0, "wga": 0.7, "aga": 0.9}
    rows = [
        {"row": f"{name} (edits images)", "seed": seed, "synthetic_wanted": 40} | own | {more: used}
        for name, used in (("usb", 30), ("asb", 40))
        for seed, more in ((0, "synthetic_used"), (1, "of an older version"))
    ]
    records = pd.DataFrame(rows).assign(uses_validation=False)
    records.loc[records["synthetic_used"].isna(), "synthetic_wanted"] = None
    table = markdown(records)
    assert "mixtures had, where fewer were kept: usb (edits images) 75 %.\n" in table
    assert "mixtures" not in markdown(records.drop(columns="synthetic_wanted"))


def test_one_severity_is_drawn_as_a_list_and_several_as_lines():
    own = {"kind": "raysynth", "seed": 0, "repetition": 0, "wga": 0.7}
    few = pd.DataFrame([{"row": f"r{n}", "severity": 0.9} | own for n in range(3)])
    many = pd.DataFrame([{"row": f"r{n}", "severity": 0.9} | own for n in range(30)])

    def size(records):
        return Image.open(io.BytesIO(wga_plot(records, "r0"))).size

    assert size(many)[1] > 3 * size(few)[1] and size(many)[0] == size(few)[0]
    assert size(pd.concat([few, few.assign(severity=0.99)])) != size(few)


def test_validation_chooses_a_row_at_every_seed_that_all_rows_have():
    validation = {"one": (0.8, 0.7, 0.7), "two": (0.8, 0.9, None), "other": (1.0, 1.0, 1.0)}
    wga = {"one": (0.6, 0.9, 0.9), "two": (0.9, 0.5, 0.5), "other": (1.0, 1.0, 1.0)}
    rows = [
        {"row": row, "kind": "raysynth", "severity": 0.9, "seed": seed, "repetition": 0}
        | {"validation_wga": value, "wga": wga[row][seed]}
        for row, values in validation.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    records = pd.DataFrame(rows)
    among = {"either": ("one", "two")}
    choices = choose(records, among)
    assert [(one.seed, one.row) for one in choices] == [(0, "one"), (1, "two")]
    found = with_choices(records, choices)
    assert len(found) == len(records) + 2
    assert entries(found, "wga")["either"][0.9].seeds == (0.6, 0.5)  # test WGA had no say
    said = choices_markdown(choices, among)
    assert "among one, two (taken: one 1 ×, two 1 ×)" in said
    assert choose(records, {"all": ("one", "two", "three")}) == []
    pd.testing.assert_frame_equal(with_choices(records, []), records)


def test_rows_are_compared_seed_by_seed():
    """Paired: rows that rise and fall together are far apart when their difference is steady."""
    wga = {
        ("ours", "raysynth"): (0.70, 0.80, 0.93),
        ("prompts", "raysynth"): (0.69, 0.78, 0.90),
        ("late", "raysynth"): (None, None, 0.5),
        ("erm", "reference"): (0.1, 0.1, 0.1),
        ("subg", "reference"): (0.60, 0.70, 0.80),
        ("lucky", "reference"): (None, None, 0.95),
        ("clip", "control"): (0.80, 0.90, None),
    }
    rows = [
        {"row": row, "kind": kind, "severity": 0.9, "seed": seed, "repetition": 0, "wga": value}
        for (row, kind), values in wga.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    records = pd.DataFrame(rows)
    records["uses_validation"] = records["row"] == "subg"
    found = {one.role: one for one in comparisons(records, "prompts")}
    assert {role: one.other for role, one in found.items()} == {
        "best reference": "subg",
        "best control": "clip",
        "baseline": "prompts",
    }
    steady = found["baseline"].by_row["ours"]
    assert steady.seeds == pytest.approx((0.01, 0.02, 0.03))
    assert "prompts" not in found["baseline"].by_row
    assert steady.half == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert found["best control"].by_row["ours"].seeds == pytest.approx((-0.1, -0.1))
    assert "late" not in found["best control"].by_row  # no seed in common
    table = differences_markdown(records, "prompts")
    assert "| − subg* (best reference) | − clip (best control) | − prompts (baseline) |" in table
    assert "| ours | +11.0 ± 4.3 | -10.0 ± 0.0 | +2.0 ± 2.5 |" in table
    assert "| late | -30.0 | – | -40.0 |" in table
    saved = json.loads(json.dumps(differences_json(records)))
    assert [one["role"] for one in saved] == ["best reference", "best control"]
    assert saved[0]["rows"]["late"]["half_interval"] is None
    assert not differences_markdown(records[records["row"] == "ours"])
