"""`raysynth train` end to end: adapters that diffusers reads, resumed, kept, independent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load, load_file
from typer.testing import CliRunner

from raysynth.adapter_runs.course import asked_of, check
from raysynth.adapter_runs.planned import rehearsed
from raysynth.adapter_runs.run import run_train
from raysynth.adapter_runs.settings import read_train
from raysynth.cli import app
from raysynth.datasets.pictures import ORIENTATION
from raysynth.errors import ConfigError, DataError
from raysynth.finetune.draws import draw
from raysynth.finetune.kept import Kept
from raysynth.finetune.material import heard, prepare
from raysynth.models.base import load_base
from raysynth.models.sources import EMBEDDED
from raysynth.progress import QUIET, Progress
from raysynth.storage.marks import is_marked
from raysynth.verify import verify
from tests.adapter_runs.folders import write_folders

SMALL = [
    "finetune.steps=2",
    "finetune.batch_size=2",
    "finetune.rank=2",
    "finetune.preview_steps=2",
    "finetune.precision=float32",
    "base.dtype=float32",
    "resources.workers=1",
    "trackers=[]",
]


def config_of(folder: Path, run: Path, *more: str):
    return read_train(str(folder), [*SMALL, *more], to=str(run))


def train(folder: Path, run: Path, *more: str):
    return run_train(config_of(folder, run, *more), loudness=QUIET)


def weights(run: Path) -> dict[str, bytes]:
    files = run.glob("adapters/*/pytorch_lora_weights.safetensors")
    return {file.parent.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    root = write_folders(tmp_path_factory.mktemp("train") / "pets", {"cat": 3, "dog": 2})
    (root / "dog/0.txt").write_text("a coat on grass")
    return root


@pytest.fixture(scope="module")
def made(ray_local, pets):
    run = pets.parent / "run"
    return run, train(pets, run)


def test_a_folder_leaves_an_adapter_with_card_previews_and_losses(made):
    run, found = made
    assert list(found.records) == ["cat", "dog"] and found.said.startswith("2 adapters: ")
    for name, folder in found.folders.items():
        assert (
            found.records[name].steps
            == 2
            == len(json.loads(Path(folder, "losses.json").read_text()))
        )
        assert [file.name for file in Path(folder, "previews").iterdir()] == ["000002.png"]
        assert is_marked(Path(folder, "preview.png").read_bytes())
        card = ModelCard.load(f"{folder}/README.md", ignore_metadata_errors=False)
        assert card.data.library_name == "diffusers" and "lora" in card.data.tags
    assert "a coat on grass, and 1 more captions" in card.text
    verify(str(run), Progress(loudness=QUIET), lambda text: None)


def test_diffusers_loads_what_was_trained(made):
    pipe = StableDiffusionPipeline.from_pretrained(str(EMBEDDED), safety_checker=None)
    pipe.set_progress_bar_config(disable=True)

    def image() -> np.ndarray:
        dice = torch.Generator().manual_seed(0)
        return pipe("a coat", num_inference_steps=2, generator=dice, output_type="np").images

    plain = image()
    pipe.load_lora_weights(made[1].folders["cat"])
    assert not np.array_equal(plain, image())


def test_captions_are_what_images_are_trained_on(pets, tmp_path):
    config = config_of(pets, tmp_path / "run")
    _, (cat, dog) = asked_of(config)
    assert not cat.captions and cat.prompts == {0: "a photo of cat"}
    assert dog.captions == ("a coat on grass", "a photo of dog")
    assert dog.spoken[0] == ["a coat on grass", "a photo of dog"]
    assert dog.spoken[1].tolist() == [0, 1]
    assert (cat.steps, cat.batch, dog.batch) == (2, 2, 2)


def test_the_same_command_again_trains_nothing(made, pets):
    run, _ = made
    before = {file: file.stat().st_mtime_ns for file in run.glob("adapters/*/*")}
    train(pets, run)
    assert {file: file.stat().st_mtime_ns for file in run.glob("adapters/*/*")} == before


@pytest.mark.slow
def test_what_is_unchanged_is_kept_and_what_is_new_is_what_it_is_alone(made, pets, tmp_path):
    run, _ = made
    other = shutil.copytree(pets, tmp_path / "pets")
    copy = shutil.copytree(run, tmp_path / "run")
    write_folders(other, {"bird": 2})
    (other / "dog/1.txt").write_text("a coat on gravel")  # 0's is left out at both steps
    train(other, copy)
    found, before = weights(copy), weights(run)
    assert found["cat"] == before["cat"] and found["dog"] != before["dog"]
    told = json.loads((copy / "adapters/cat/adapter.json").read_text())
    assert told["group"] == 1, "the folder's place has changed"
    log = "".join(file.read_text() for file in sorted((copy / "log").iterdir()))
    assert "1 of 3 adapters are unchanged, and kept" in log
    train(write_folders(tmp_path / "alone", {"bird": 2}), tmp_path / "other")
    alone, beside = (load(each["bird"]) for each in (weights(tmp_path / "other"), found))
    assert alone.keys() == beside.keys()
    for name in alone:  # random numbers are its own; sums of a batch are rounded otherwise
        torch.testing.assert_close(alone[name], beside[name], rtol=1e-3, atol=1e-4)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(pets, tmp_path):
    lines = list(rehearsed(config_of(pets, tmp_path / "run")))
    text = "\n".join(lines)
    assert "2 adapters, 4 steps together" in text and "1 of 5 images" in text
    assert "GB for one adapter" in text and ("time  " in text or "GPU-hours" in text)
    assert [line.split() for line in lines if line.endswith(" new")] == [
        ["images", "new"],
        ["finetune", "new"],
    ]
    assert "warning: base.name=embedded" in text, "it knows no cats"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_is_refused_before_ray(pets, tmp_path):
    config = config_of(pets, tmp_path / "run", "finetune.overrides.bird.steps=3")
    with pytest.raises(ConfigError, match="no adapter bird; expected one of cat, dog"):
        check(config)
    broken = shutil.copytree(pets, tmp_path / "pets")
    (broken / "cat/9.png").write_text("none")
    with pytest.raises(DataError, match=r"cat/9\.png: none of the formats"):
        run_train(config_of(broken, tmp_path / "run"), loudness=QUIET)


@pytest.mark.slow
def test_an_image_that_ends_too_early_is_named_by_the_worker_that_reads_it(
    ray_local, pets, tmp_path
):
    broken = shutil.copytree(pets, tmp_path / "pets")
    whole = (broken / "cat/0.png").read_bytes()
    (broken / "cat/0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1 image.*cat/0\.png: .*Fix: replace or remove them$"):
        train(broken, tmp_path / "run")


def test_own_captions_reach_the_network(pets, tmp_path, made):
    """The encoded prompts of a job are those of its captions, one row for each."""
    run, _ = made
    config = config_of(pets, run)
    _, (_, dog) = asked_of(config)
    base = load_base(config.base, ("vae", "text", "scheduler"))
    kept = Kept(str(tmp_path), config.base, live=False)
    material = prepare(dog, draw(dog, config.finetune, 0), base, f"{run}/images", kept, "dog")
    expected = base.condition(["a coat on grass", "a photo of dog", ""])
    assert torch.equal(material.texts["states"], expected["states"])


def test_a_caption_that_is_longer_than_is_read_loses_its_end(pets, tmp_path):
    """As kohya's and diffusers' trainers do; the folder's own words are refused, as in a run."""
    long = shutil.copytree(pets, tmp_path / "pets")
    (long / "dog/0.txt").write_text("a coat on grass " * 100)
    config = config_of(long, tmp_path)
    _, (cat, dog) = asked_of(config)
    base = load_base(config.base, ("vae", "text", "scheduler"))
    assert dog.cuts and not cat.cuts
    said = heard(base, dog, dog.captions)
    assert torch.equal(said["states"][0], heard(base, dog, ["a coat on grass " * 50])["states"][0])
    with pytest.raises(ConfigError, match="expected at most"):
        heard(base, cat, ["a coat on grass " * 50])


def test_adapters_are_exported_as_other_programs_read_them(made, tmp_path):
    run, _ = made
    exported = CliRunner().invoke(app, ["export", "adapters", str(run), "--to", f"{tmp_path}/out"])
    assert exported.exit_code == 0, exported.output
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["README.md", "cat.safetensors", "dog.safetensors"]
    names = load_file(tmp_path / "out" / "cat.safetensors")
    assert any(name.startswith("lora_unet_") and name.endswith(".alpha") for name in names)
    cut = shutil.copytree(run, tmp_path / "cut")
    (cut / "adapters" / "adapters.json").unlink()
    refused = CliRunner().invoke(app, ["export", "adapters", str(cut), "--to", f"{tmp_path}/other"])
    assert isinstance(refused.exception, ConfigError)
    assert "not all adapters are trained yet" in str(refused.exception)


def test_images_are_trained_in_their_own_proportions(ray_local, tmp_path):
    sizes = [(80, 50), (50, 80), (60, 60)]
    root = write_folders(tmp_path / "signs", {"stop": 3, "yield": 2}, sizes)
    turned = Image.open(root / "stop/1.png")
    exif = turned.getexif()
    exif[ORIENTATION] = 6  # lies on its side, and is seen upright
    turned.save(root / "stop/1.jpg", exif=exif)
    (root / "stop/1.png").unlink()
    own = "aspect_ratio=2"
    (line,) = [x for x in rehearsed(config_of(root, tmp_path / "run", own)) if "height x" in x]
    assert line.endswith("height x width: 40 x 24 (3), 32 x 32 (1), 24 x 40 (1) images")
    found = train(root, tmp_path / "run", own, "finetune.steps=3")
    first = weights(tmp_path / "run")
    assert {record.steps for record in found.records.values()} == {3}
    with Image.open(f"{found.folders['stop']}/previews/000003.png") as picture:
        assert picture.size == (4 * 24, 40), "what most steps are trained at"
    squares = train(root, tmp_path / "squares", "finetune.steps=3")
    assert all(weights(tmp_path / "squares")[name] != first[name] for name in squares.records)
    with pytest.raises(ConfigError, match=r"aspect_ratio=2 with finetune\.prior_weight"):
        config_of(root, tmp_path / "run", own, "finetune.prior_weight=1")
