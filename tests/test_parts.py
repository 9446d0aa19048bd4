"""Parts of another package, one of every kind, in one run; and the documents that list parts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import raysynth.models
from raysynth.errors import ConfigError
from raysynth.parts import KINDS, kind_of, table, written
from raysynth.storage.tables import read_table
from raysynth.synthesis.shards import read_shards
from tests.added import write_part
from tests.test_pipeline import MINIATURE

ROOT = Path(__file__).parent.parent
ADDED = {
    "data-sets": """
        from dataclasses import replace

        from raysynth.datasets.layouts.outfits import PART

        PART = replace(PART, title="Outfits again")
    """,
    "grouping": """
        import numpy as np

        from raysynth.grouping.method import Grouped, Method, attributes
        from raysynth.knobs import Section, knob

        class Knobs(Section):
            swapped: bool = knob(False, "The other way round.")

        def group(images, knobs):
            ids, found = [], []
            for part in images.parts("id", "attribute"):
                ids += part["id"].to_pylist()
                given = part["attribute"].to_numpy()
                found += (1 - given if knobs.swapped else given).tolist()
            return Grouped(("one", "two"), ("grass", "gravel"), attributes(ids, found))

        PART = Method("As given, found again", "a test", group, Knobs)
    """,
    "families": """
        from raysynth.models.families.stable_diffusion_1 import PART as SD1

        class Other(type(SD1)):
            title = "Another family"

            def recognises(self, read):
                network = read("unet")
                return network is not None and network.get("_class_name") == "OtherUNet"

        PART = Other()
    """,
    "generators": """
        from raysynth.generators.generator import Generator, Models

        PART = Generator("A LoRA of several groups", "a test", Models("lora", "auto"))
    """,
    "objectives": """
        from raysynth.finetune.objectives.denoising import PART as DENOISING
        from raysynth.knobs import Section, knob

        class Weighted(type(DENOISING)):
            title = "Denoising, weighted"

            class Knobs(Section):
                weight: float = knob(1.0, "Of the loss.")

            def losses(self, batch, denoise, knobs):
                return knobs.weight * super().losses(batch, denoise, knobs)

        PART = Weighted()
    """,
    "optimizers": """
        from raysynth.finetune.optimizers.adamw import PART as ADAMW

        class Slow(type(ADAMW)):
            title, rate = "AdamW, slow", 1e-5

        PART = Slow()
    """,
    "terms": """
        from raysynth.finetune.terms.cbdm import PART as CBDM

        class Halved(type(CBDM)):
            title = "CBDM, halved"

            def __call__(self, batch, knobs):
                return super().__call__(batch, knobs) / 2

        PART = Halved()
    """,
    "guidance": """
        from dataclasses import replace

        from raysynth.knobs import Section, knob

        class Damped:
            title, source = "Damped", "a test"

            class Knobs(Section):
                by: float = knob(0.9, "Share of the prediction that is left.")

            def conditions(self, scale, knobs):
                return ("empty",)

            def __call__(self, predicted, at, knobs):
                prompt, empty = predicted["prompt"], predicted["empty"]
                return replace(prompt, raw=empty.raw + knobs.by * (prompt.raw - empty.raw))

        PART = Damped()
    """,
    "schedules": """
        import numpy as np

        from raysynth.knobs import Section, knob

        class Steep:
            title, source, predictions = "Steep", "a test", ("flow_prediction",)

            class Knobs(Section):
                by: float = knob(0.5, "Each level, as a share of the one before.")

            def levels(self, sought, knobs):
                return sought.noise.top * knobs.by ** np.arange(sought.steps)

        PART = Steep()
    """,
    "scorers": """
        import pyarrow as pa

        from raysynth.knobs import Section

        class Brightness:
            title, source, Knobs = "Brightness", "a test", Section
            columns = pa.schema([("brightness", pa.float32())])

            def open(self, scoring, knobs):
                def score(images, specs):
                    levels = images.pixels.mean(axis=(1, 2, 3)) / 255
                    return {"brightness": pa.array(levels, pa.float32())}

                return score

        PART = Brightness()
    """,
    "audits": """
        import numpy as np

        from raysynth.audit.method import Audit, Owed
        from raysynth.knobs import Section, knob

        class Knobs(Section):
            at_least: float = knob(0.5, "What an image owes its own group.")

        def score(generated, knobs):
            group = generated.images["group"].to_numpy()
            return Owed(np.eye(generated.groups.count)[group] * knobs.at_least)

        PART = Audit("Its own group", "a test", score, Knobs)
    """,
    "rules": """
        from raysynth.selection.rule import Rule

        PART = Rule("Worst first", "a test", lambda config: "the worst half",
                    order=lambda scored: scored.score, share=lambda config: 0.5)
    """,
    "scores": """
        from raysynth.selection.rule import Score

        PART = Score("Brightest", "a test", "brightness", ("brightness",),
                     lambda columns, config: columns["brightness"])
    """,
    "quotas": """
        from raysynth.selection.rule import Quota

        PART = Quota("All but one", "a test", lambda could: [max(1, n - 1) for n in could])
    """,
    "references": """
        from raysynth.heads.spec import HeadSpec
        from raysynth.references.reference import Reference, on_real

        PART = Reference(
            "Twice the decay", "a test",
            lambda config, setting: (on_real(config, setting, steps=2 * config.steps),),
            lambda config: (HeadSpec("added_heads"),),
        )
    """,
    "heads": """
        from raysynth.heads.spec import HeadObjective

        def fit(specs, seen):
            from raysynth.heads.judging import judged_by_all
            from raysynth.heads.objectives.balanced import PART as BALANCED

            return BALANCED.fit(specs, seen)

        PART = HeadObjective("Balanced again", "a test", fit, swept=False, schedules=("head",))
    """,
    "controls": """
        import numpy as np

        from raysynth.references.control import Control

        def load(blueprint, size, batch):
            return lambda images: images.pixels.mean(axis=(2, 3)).astype(np.float32)

        PART = Control("Mean colour", "a test", load)
    """,
    "trackers": """
        import json, os

        from raysynth.trackers.tracker import Kind

        class Lines:
            def __init__(self, folder):
                os.makedirs(folder, exist_ok=True)
                self.file = open(f"{folder}/lines", "w")

            def metrics(self, stage, step, values):
                print(stage, step, values, file=self.file)

            def record(self, stage, facts):
                print(stage, len(facts), file=self.file, flush=True)

            def close(self):
                self.file.close()

        PART = Kind("Lines", "a test", lambda folder, name, config, knobs: Lines(folder))
    """,
}
CHOSEN = [
    "dataset.name=added_data_sets",
    "dataset.severity=0.8",
    "grouping.method={name: added_grouping, swapped: true}",
    "generator=added_generators",
    "finetune.objective={name: added_objectives, weight: 2.0}",
    "finetune.optimizer=added_optimizers",
    "finetune.terms=[{name: added_terms, tau: 0.5}]",
    "synthesis.guidance=[classifier_free, {name: added_guidance, by: 0.8}]",
    "synthesis.schedule={name: added_schedules, by: 0.6}",
    "synthesis.scorers=[clip, copies, added_scorers]",
    "audit.method={name: added_audits, at_least: 0.7}",
    "audit.images_per_group=null",
    "selection.leak=top1",
    "selection.rule=added_rules",
    "selection.score=added_scores",
    "selection.quota=added_quotas",
    "references.names=[erm, added_references]",
    "references.controls=[added_controls]",
    "classifier.head_objective=added_heads",
    "trackers=[added_trackers]",
]


def test_there_is_a_part_of_every_kind():
    assert set(ADDED) == set(KINDS)


@pytest.mark.slow
def test_a_part_of_every_kind_from_outside_in_one_run(tmp_path):
    site, base = tmp_path / "site", tmp_path / "base"
    for kind, text in ADDED.items():
        name = f"added_{kind.replace('-', '_')}"
        write_part(site, KINDS[kind].open().package, name, text)
    shutil.copytree(Path(raysynth.models.__file__).parent / "tiny", base)
    unet = base / "unet" / "config.json"
    unet.write_text(unet.read_text().replace("UNet2DConditionModel", "OtherUNet"))
    settings = [f"storage_path={tmp_path}", *MINIATURE, *CHOSEN, f"base.name={base}"]
    command = [sys.executable, "-m", "raysynth", "run", *settings]
    path = os.pathsep.join([str(site), str(ROOT)])
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    run = tmp_path / "mini"
    synthetic = read_shards(str(run / "synthetic"))
    made = json.loads((run / "synthetic" / ".manifest.json").read_text())["facts"]
    assert made["levels"] == pytest.approx([0.8, 0.8 * 0.6]), "from the Gaussian on"
    assert 0 < min(synthetic["brightness"].to_pylist()) < 1
    owed = [max(row) for row in read_table(str(run / "audit"))["scores"].to_pylist()]
    assert owed == pytest.approx([0.7] * len(synthetic))
    kept = read_table(str(run / "selection"))["kept"].to_pylist()
    assert 0 < sum(kept) < len(kept) / 2
    methods = json.loads((run / "classifier" / "results.json").read_text())["methods"]
    assert {"added_references", "added_controls", "raysynth"} <= set(methods)
    assert any(
        "added_terms" in json.loads(each.read_text()) for each in run.glob("adapters/*/terms.json")
    )
    assert (run / "grouped").is_dir() and (run / "trackers" / "added_trackers" / "lines").is_file()
    page = (run / "report" / "index.html").read_text()
    assert "Twice the decay" in page and "Mean colour" in page


def test_documents_list_the_parts_of_today():
    text = "".join((ROOT / "docs" / name).read_text() for name in ("method.md", "parts.md"))
    assert written(text) == text, "make docs"
    assert all(f"<!-- parts: {kind} -->" in text for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_says_what_it_is_and_from_whom(kind):
    for line in table(kind_of(kind)).splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert all(cells[:4]), line


def test_an_unknown_kind_is_told_the_known_ones():
    with pytest.raises(ConfigError, match="expected one of data-sets"):
        kind_of("referenzen")
