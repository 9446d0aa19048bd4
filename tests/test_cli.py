"""The commands: what they print, how they refuse, and that they answer at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raysynth.benchmark.driver import Finished
from raysynth.cli import main, split_arguments
from raysynth.config.config import Config
from raysynth.config.documentation import markdown
from raysynth.config.files import load_config
from raysynth.planning.plan import plan_run
from tests.datasets.test_published import write_waterbirds

ROOT = Path(__file__).parent.parent


def _raysynth(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raysynth", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.fixture
def inside(capsys, monkeypatch):
    """The command in this process, which has imported torch and diffusers already."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["raysynth", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, left.value.code, said.out, said.err)

    return call


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ([], [])),
        (["my.yaml"], (["my.yaml"], [])),
        (["seed=1"], ([], ["seed=1"])),
        (
            ["my.yaml", "own.yaml", "seed=1", "dataset.severity=0.95"],
            (["my.yaml", "own.yaml"], ["seed=1", "dataset.severity=0.95"]),
        ),
    ],
)
def test_first_arguments_without_equals_are_the_files(arguments, expected):
    assert split_arguments(arguments) == expected


def test_config_prints_yaml_that_runs_the_same(tmp_path):
    overrides = ["dataset.severity=0.95", "search.ratios=[0, 2]", f"storage_path={tmp_path}"]
    printed = _raysynth("config", *overrides)
    assert printed.returncode == 0, printed.stderr
    (tmp_path / "run.yaml").write_text(printed.stdout)
    again = _raysynth("config", str(tmp_path / "run.yaml"))
    assert again.stdout == printed.stdout
    config = Config.model_validate(yaml.safe_load(printed.stdout))
    assert config.dataset.severity == 0.95
    assert config.search.ratios == (0.0, 2.0)


@pytest.mark.parametrize("command", ["run", "config"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset.severty=0.9"], ["dataset.severty", "Did you mean `severity`?"]),
        (["seed=many"], ["seed", "integer", "'many'"]),
        (["missing.yaml"], ["missing.yaml", "no such configuration file"]),
        (["seed=1", "my.yaml"], ["my.yaml", "section.key=value"]),
    ],
)
def test_a_wrong_configuration_is_refused(command, arguments, words):
    done = _raysynth(command, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


def test_version_and_help():
    assert _raysynth("--version").stdout.startswith("raysynth 0.")
    assert "run" in _raysynth("--help").stdout


def test_configuration_needs_neither_torch_nor_ray():
    code = (
        "import sys; from raysynth.cli import app, split_arguments;"
        "import raysynth.config.documentation;"
        "from raysynth.config.files import load_config; load_config();"
        "print([m for m in ('torch', 'ray', 'transformers', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_is_checked_before_ray_does_not_import_it():
    """Ray reads its environment when it is imported, and the session has not set that yet."""
    code = (
        "import sys; from raysynth.config.files import load_config;"
        "from raysynth.planning.preflight import preflight;"
        "preflight(load_config(None, ['resources.workers=1', 'search.concurrent=1']));"
        "print([m for m in ('ray', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_keys_names_every_key_and_the_page_in_docs_is_in_step():
    text = _raysynth("config", "--help-keys").stdout
    assert text == markdown()
    for name, field in Config.model_fields.items():
        assert f"`{name}`" in text
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"| `{key}` |" in text
    assert "PydanticUndefined" not in text
    assert (ROOT / "docs" / "configuration.md").read_text() == text, "run `make docs`"


def test_help_keys_of_a_section_read_well_in_a_terminal():
    shown = _raysynth("config", "--help-keys", "audit").stdout
    assert "audit.images_per_group = 50\n    Generated images of each group" in shown
    assert "|" not in shown and "`" not in shown and "search.trials" not in shown
    refused = _raysynth("config", "--help-keys", "serch")
    assert refused.returncode == 2 and "no section 'serch'" in refused.stderr


def test_plan_counts_without_starting_anything(inside, tmp_path):
    printed = inside("plan", f"storage_path={tmp_path}", "clustering.k=2", "finetune.min_images=30")
    assert printed.returncode == 0, printed.stderr
    assert "4 adapters" in printed.stdout
    lent = {"pullover/gravel": "coat/gravel's", "coat/grass": "pullover/grass's"}
    for group, lender in lent.items():
        (row,) = (line for line in printed.stdout.splitlines() if f" {group} " in line)
        assert lender in row
    assert re.search(r"^(time|GPU-hours) +", printed.stdout, re.MULTILINE)
    assert "pullover/gravel: a photo of a pullover on gravel" in printed.stdout
    assert list(tmp_path.iterdir()) == []
    vanilla = inside("plan", "generator=vanilla", f"storage_path={tmp_path}")
    assert "the base" in vanilla.stdout and "0 adapters" in vanilla.stdout
    assert "for one adapter" not in vanilla.stdout and "per adapter" not in vanilla.stdout
    edit = inside("plan", "generator=edit", "dataset.severity=0.999", f"storage_path={tmp_path}")
    assert "full weights, one per attribute; edits real images" in edit.stdout
    assert "2 adapters" in edit.stdout and "the attribute's, lent" in edit.stdout
    shared = inside("plan", "generator=shared", f"storage_path={tmp_path}")
    assert "one for all groups; draws from noise" in shared.stdout
    assert "1 adapter," in shared.stdout and "the shared one" in shared.stdout
    assert "GB in the driver" in shared.stdout and "object_store_memory" not in shared.stdout
    refused = inside("plan", "finetune.min_images=4000", f"storage_path={tmp_path}")
    assert refused.returncode == 2 and "finetune.min_images=4000" in refused.stderr


def test_plan_of_auto_counts_all_candidates_and_equal_models_once(inside, tmp_path):
    auto = load_config(None, ["generator=auto", f"storage_path={tmp_path}"])
    whole = plan_run(auto)
    alone = {
        name: plan_run(auto.model_copy(update={"generator": name})) for name in auto.candidates
    }
    assert list(whole.generators) == list(auto.candidates)
    assert whole.generators["edit"].lent_by == "shared" and not whole.generators["shared"].lent_by
    for stage in ("generation", "fine-tuning"):
        counted = [a.gpu_hours[stage] for name, a in alone.items()]
        if stage == "fine-tuning":
            counted.remove(alone["edit"].gpu_hours[stage])
        assert whole.gpu_hours[stage] == pytest.approx(sum(counted))
    assert whole.gpu_hours["classifiers"] > alone["shared"].gpu_hours["classifiers"]
    printed = inside("plan", "generator=auto", f"storage_path={tmp_path}").stdout
    assert "those of shared, trained once" in printed and "all 4 candidates, one run" in printed
    assert (
        len(re.findall("^(?:time|GPU-hours) ", printed, re.MULTILINE)) == 1
        and "all candidates (vanilla, " in printed
    )


def test_plan_of_the_paper_scale_needs_no_model_and_no_hub(inside, tmp_path):
    write_waterbirds(tmp_path, each=40)
    file = ROOT / "configs" / "waterbirds.yaml"
    printed = inside("plan", str(file), f"dataset.path={tmp_path}", "--tflops", "100")
    assert printed.returncode == 0, printed.stderr
    assert "859.5 M parameters" in printed.stdout and "100 TFLOP/s" in printed.stdout
    assert "shape of Stable Diffusion 1.x" in printed.stdout
    assert "a local Ray: resources.object_store_memory=" in printed.stdout
    missing = inside("plan", str(file), "dataset.path=/nowhere")
    assert missing.returncode == 2 and "metadata.csv" in missing.stderr


def test_plan_prints_names_as_they_are_written(inside, tmp_path):
    """Names that look like rich's markup."""
    write_waterbirds(tmp_path / "images", each=40)
    names = ["car [rear]", "bag [/x]"], ["[red]", ":car:"]
    folder = tmp_path / "folder"
    folder.mkdir()
    picture = next((tmp_path / "images").rglob("*.jpg")).read_bytes()
    rows = ["file_name,label,attribute"]
    for number in range(96):
        (folder / f"{number}.jpg").write_bytes(picture)
        label, attribute = names[0][number % 2], names[1][number // 2 % 2]
        rows.append(f"{number}.jpg,{label},{attribute}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    printed = inside(
        *("plan", "dataset.name=folder", f"dataset.path={folder}", f"storage_path={tmp_path}/runs"),
        "classifier.image_size=32",
    )
    assert printed.returncode == 0, printed.stderr
    for name in ("car [rear]/[red]", "bag [/x]/[red]", "bag [/x]/:car:"):
        assert f" {name} " in printed.stdout


def test_exit_codes_are_told():
    said = " ".join(_raysynth("--help").stdout.split())
    assert "Exit codes: 0 done; 2 refused" in said and "143 (SIGTERM)" in said


@pytest.mark.parametrize(("codes", "expected"), [((2, 3), 3), ((2, 2), 2), ((3, 1, 2), 1), ((), 0)])
def test_a_benchmark_ends_with_the_worst_of_its_cells(codes, expected):
    failed = {str(number): code for number, code in enumerate(codes)}
    finished = Finished("", "", [], {}, pd.DataFrame(), Config().benchmark, failed)
    assert finished.exit_code == expected
