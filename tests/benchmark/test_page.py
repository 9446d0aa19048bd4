"""`raysynth benchmark --publish`: a benchmark's page; the committed ones are as written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from raysynth.benchmark.driver import run_benchmark
from raysynth.benchmark.page import first_comment, page, wrapped
from raysynth.benchmark.publish import publish, tabled
from raysynth.cli import split_arguments
from raysynth.config.files import load_config
from tests.benchmark.test_benchmark import planned, recorded

ROOT = Path(__file__).parents[2]
FOLDER = "docs/results"
BENCHMARKS = sorted(
    file.stem
    for file in (ROOT / FOLDER).glob("*.md")
    if "\nraysynth benchmark " in file.read_text()
)
"""Those that were run: their records are committed, and so is their page."""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_committed_pages_are_what_their_commands_write(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    committed = (ROOT / FOLDER / f"{name}.md").read_text()
    command = committed.split("```bash\n")[1].split("\n```")[0]
    raysynth, benchmark, *given = shlex.split(command)
    assert (raysynth, benchmark, *given[-3:]) == (
        *("raysynth", "benchmark", "--finished"),
        *("--publish", FOLDER),
    )
    (file,), overrides = split_arguments(given[:-3])
    # Of the records alone: whoever runs the test may have stages of his own.
    config = load_config(file, [*overrides, f"storage_path={tmp_path}"])
    finished = run_benchmark(config, finished_only=True)
    assert page(finished, *tabled(finished), command, FOLDER, file) == committed, "make results"
    assert (ROOT / FOLDER / f"{name}.png").is_file()


def test_a_page_says_what_there_is_and_how_it_was_made(tmp_path):
    config = planned(tmp_path, severities=(0.7, 0.8), seeds=2)
    empty = run_benchmark(config, finished_only=True)
    recorded(empty.cells[:7], f"{tmp_path}/one.csv")
    benchmark = config.benchmark.model_copy(update={"records": (f"{tmp_path}/one.csv",)})
    part = run_benchmark(config.model_copy(update={"benchmark": benchmark}), finished_only=True)
    (tmp_path / "own.yaml").write_text(f"# What is {'asked ' * 30}\n#\n# here.\nname: table # no\n")
    publish(part, "raysynth benchmark", f"{tmp_path}/docs/pages", f"{tmp_path}/own.yaml")
    text = (tmp_path / "docs/pages/table.md").read_text()
    assert text.startswith("# table\n\nWhat is asked ")
    assert " here.\n\nRows and budgets: [own.yaml](../../own.yaml). Of 12 cells" in text
    assert "2 x 2) 7 are finished." in " ".join(text.split())
    assert "```bash\nraysynth benchmark\n```\n\n![WGA of every row](table.png)\n\n| row |" in text
    assert (tmp_path / "docs/pages/table.png").read_bytes().startswith(b"\x89PNG")
    assert max(len(line) for line in text.splitlines() if line[:1] != "|") <= 100
    alone = page(part, *tabled(part), "raysynth benchmark", "docs", "")
    assert alone.startswith("# table\n\nOf 12 cells ")


def test_prose_is_wrapped_and_tables_are_not():
    row, prose = "| " + "a " * 99 + "|", "a-word " * 30
    text = wrapped(f"{row}\n\n{prose}\n{row}\n")
    assert text.count(row) == 2 and text.endswith("\n")
    assert all(len(line) <= 100 for line in text.replace(row, "").splitlines())
    assert first_comment(str(ROOT / "configs/benchmarks/outfits.yaml")).startswith("The main table")
