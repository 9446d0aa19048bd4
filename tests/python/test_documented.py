"""From a folder of images to a fair classifier, as docs/python.md and the notebook tell it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

import raysynth
from raysynth.planning.first import begin
from tests.datasets.trees import write_garments

ROOT = Path(__file__).parents[2]
SMALL = {
    "clustering": {"k": 1},
    "finetune": {"steps": 4, "batch_size": 4},
    "synthesis": {"images_per_group": 8, "steps": 2, "batch_size": 8},
    "selection": {"on_unfaithful": "go_on"},
    "references": {
        "names": ["erm", "resampling"],
        "controls": [],
        "seeds": 1,
        "steps": 8,
        "weight_decays": [0.1],
    },
    "classifier": {"seeds": 1, "steps": 8},
    "search": {"trials": 2, "steps": [4, 8]},
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `birds/`, `birds.yaml` of `raysynth init`, and `small.yaml`."""
    folder = tmp_path_factory.mktemp("own")
    sizes = ["dataset.train_images=120", "dataset.validation_images=40", "dataset.test_images=40"]
    write_garments(folder / "birds", *sizes, "dataset.severity=0.8")
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert any("written: birds.yaml" in line for line in begin("birds"))
        Path("small.yaml").write_text(yaml.safe_dump(SMALL))
        yield folder
    finally:
        os.chdir(before)


def test_what_init_writes_runs_and_its_results_are_tables(place):
    run = raysynth.run(["birds.yaml", "small.yaml"], quiet=True)
    assert set(run.results.index) == {"erm", "resampling", "raysynth"}
    assert run.results["shipped"].sum() == 1 and run.results["wga"].between(0, 100).all()
    assert run.accuracies.shape == (3, 4) and list(run.accuracies.columns) == list(run.groups.index)
    assert run.groups["test"].sum() == 40 and run.groups["kept"].sum() == len(run.kept)
    worst = run.accuracies.loc["erm"].min()
    assert worst == pytest.approx(run.results.loc["erm", "wga"])
    erm = run.predictions.query("method == 'erm'")
    assert len(erm) == 40
    assert 100 * erm.groupby("group")["right"].mean().min() == pytest.approx(worst)
    assert len(run.images(run.kept["id"][:3])) == 3 and len(run.real) == 200
    assert Path(run.page).is_file() and "shipped" in run._repr_html_()
    with pytest.raises(raysynth.ConfigError, match="no image 'none'"):
        run.images(["none"])
    again = raysynth.rehearse(["birds.yaml", "small.yaml"]).stages
    assert set(again.values()) == {"unchanged"}


def test_the_classifier_says_what_the_run_predicted(place):
    run = raysynth.load("runs/birds")
    (shipped,) = run.results.index[run.results["shipped"]]
    rows = run.predictions
    told = rows[rows["method"] == shipped].set_index("id")["predicted"]
    images = run.images(told.index, stage="ingest")
    classify = run.classifier()
    assert classify(images) == told.tolist()
    chances = classify.probabilities(images[:3])
    assert list(chances.columns) == ["coat", "pullover"]
    assert chances.sum(axis=1).to_numpy() == pytest.approx(1.0)


def test_every_example_of_the_page_runs(place):
    text = (ROOT / "docs/python.md").read_text()
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    own = [block for block in blocks if "raysynth.train(" not in block]  # see test_adapters
    assert len(blocks) - 1 == len(own) > 4
    for block in own:
        exec(compile(block, "docs/python.md", "exec"), names)


def test_the_notebook_runs(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs/notebooks/fair_classifier.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    assert (tmp_path / "runs/garments/classifier/model/config.json").is_file()
