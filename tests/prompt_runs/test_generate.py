"""`raysynth generate` end to end: Parquet with scores and marks, exports, resumed, from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset

from raysynth.errors import ConfigError, DataError
from raysynth.models.clip import load_clip
from raysynth.progress import QUIET, Progress
from raysynth.prompt_runs.course import check
from raysynth.prompt_runs.planned import rehearsed
from raysynth.prompt_runs.run import run_generate
from raysynth.prompt_runs.settings import read_generate
from raysynth.storage.hashes import sha256_of
from raysynth.synthesis import stage
from raysynth.verify import verify

SMALL = [
    "synthesis.steps=2",
    "synthesis.batch_size=4",
    "synthesis.actors=1",
    "synthesis.rows_per_shard=3",
    "base.dtype=float32",
    "trackers=[]",
]
PROMPTS = "prompt,adapter,seed,count\na photo of a coat on grass,,,2\na bag,plain,11,3\n"


def config_of(folder: Path, loras: Path, *more: str, export: str = "none"):
    (folder / "p.csv").write_text(PROMPTS)
    given = [str(loras / "plain"), str(loras / "mixed")]
    return read_generate(
        f"{folder}/p.csv", given, [*SMALL, *more], to=f"{folder}/run", export=export
    )


@pytest.fixture(scope="module")
def made(ray_local, loras, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    return folder, run_generate(config_of(folder, loras, export="imagefolder"), loudness=QUIET)


def test_images_are_in_parquet_with_scores_seeds_and_marks(made, loras):
    _, found = made
    table = found.table
    assert found.count == len(table) == 7 and found.said.startswith("7 images: ")
    assert sorted(table["id"]) == [
        *("mixed-000000-0000", "mixed-000000-0001", "plain-000000-0000", "plain-000000-0001"),
        *("plain-000001-0000", "plain-000001-0001", "plain-000001-0002"),
    ]
    assert table.query("prompt == 'a bag'")["seed"].tolist() == [11, 12, 13]
    assert table["clip_prompt"].between(-1, 1).all() and table["clip_prompt"].nunique() > 3
    (data,) = load_dataset(found.folder).values()
    assert data.features["label"].names == ["plain", "mixed"] and len(data) == 7
    (image,) = found.images(["plain-000001-0001"])
    said = image.info["XML:com.adobe.xmp"]
    assert 'raysynth:seed="12"' in said and "trainedAlgorithmicMedia" in said
    file = loras / "plain/pytorch_lora_weights.safetensors"
    assert f'raysynth:adapterSHA256="{sha256_of(str(file))}"' in said
    with pytest.raises(ConfigError, match="no image 'x'"):
        found.images(["x"])


def test_the_score_is_clips_cosine_with_the_images_own_prompt(made, loras):
    folder, found = made
    clip = load_clip(config_of(folder, loras).base)
    for row in found.table.iloc[[0, -1]].to_dict("records"):
        pixels = np.array(found.images([row["id"]])[0])[None]
        cosine = float(clip.images(pixels)[0] @ clip.texts([row["prompt"]])[0])
        assert row["clip_prompt"] == pytest.approx(cosine, abs=1e-4)


def test_images_of_other_proportions_go_the_whole_way(ray_local, loras, tmp_path):
    found = run_generate(config_of(tmp_path, loras, "size=[40,24]"), loudness=QUIET)
    pictures = found.images(found.table["id"].tolist())
    assert len(pictures) == 7 and {each.size for each in pictures} == {(24, 40)}
    assert found.table["clip_prompt"].between(-1, 1).all()


def test_the_export_is_folders_of_adapters(made):
    _, found = made
    files = sorted(str(p.relative_to(found.export)) for p in Path(found.export).rglob("*.png"))
    assert files[0] == "train/mixed/mixed-000000-0000.png" and len(files) == 7
    (data,) = load_dataset("imagefolder", data_dir=found.export).values()
    assert set(data["label"]) == {"plain", "mixed"} and "clip_prompt" in data.features


def test_finished_files_are_verified_and_nothing_is_drawn_again(made, loras, monkeypatch):
    folder, found = made
    told: list[str] = []
    verify(found.root, Progress(loudness=QUIET), told.append)
    assert [line.split()[1] for line in told] == ["adapters", "synthesis", "export"]
    monkeypatch.setattr(stage, "draw", None)
    again = run_generate(config_of(folder, loras, export="imagefolder"), loudness=QUIET)
    assert again == found


@pytest.mark.slow
def test_a_run_that_was_cut_off_draws_what_is_missing_alone(made, loras, tmp_path, monkeypatch):
    """Two of three shards are on disk; the third's rows are drawn, and all are as they were."""
    _, found = made
    drawn: list[list[int]] = []
    real = stage.draw

    def draw(task, plan, missing, *rest):
        drawn.append(missing.tolist())
        half = missing.copy()
        if len(drawn) == 1:
            half[:, 1] = 4
            real(task, plan, half, *rest)
            raise KeyboardInterrupt
        real(task, plan, missing, *rest)

    monkeypatch.setattr(stage, "draw", draw)
    config = config_of(tmp_path, loras)
    with pytest.raises(KeyboardInterrupt):
        run_generate(config, loudness=QUIET)
    again = run_generate(config, loudness=QUIET)
    assert drawn == [[[0, 7]], [[4, 7]]]
    one, other = (each.table.sort_values("id").reset_index(drop=True) for each in (found, again))
    assert one.equals(other)
    ids = one["id"].tolist()
    pixels = [[image.tobytes() for image in each.images(ids)] for each in (found, again)]
    assert pixels[0] == pixels[1]


def test_a_dry_run_names_adapters_images_and_time(loras, tmp_path):
    lines = list(rehearsed(config_of(tmp_path, loras)))
    assert lines[1].split()[:4] == ["plain", "5", str(lines[1].split()[2]), "2"]
    text = "\n".join(lines)
    assert "7 images of 2 prompts, 2 steps of dpmsolver++" in text and "guidance 2" in text
    assert lines[-2:] == ["adapters     new", "synthesis    new"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        (["synthesis.scorers=[clip]"], ConfigError, "expected some of clip_prompt, or"),
        (["base.clip=/nowhere/clip"], Exception, "base.clip: no folder"),
        (["resources.workers=4000"], ConfigError, "4000"),
        (["synthesis.solver=ddim"], ConfigError, r"synthesis\.solver=ddim"),
        (["size=[40,26]"], ConfigError, r"size=\[40, 26\]: .*Fix: size=\[40, 24\]"),
        (["size=[40,24]", "synthesis.image_size=64"], ConfigError, "one of them"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_ray(loras, tmp_path, settings, error, said):
    with pytest.raises(error, match=said):
        check(config_of(tmp_path, loras, *settings))


def test_an_adapter_that_a_row_names_and_nobody_gave_is_refused(loras, tmp_path):
    config = config_of(tmp_path, loras)
    (tmp_path / "p.csv").write_text(PROMPTS.replace("plain", "nobody"))
    with pytest.raises(DataError, match="row 2: adapter 'nobody'; expected one of plain, mixed"):
        check(config)
