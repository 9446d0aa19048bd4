"""Which family a base is of, what a family says of it, and one of another package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from raysynth.errors import ModelError
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import FAMILIES, USUAL, family_of, reader_of
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import EMBEDDED, check_base

SD1 = FAMILIES[USUAL]


@pytest.fixture
def model(tmp_path) -> Path:
    """The embedded base as a folder of somebody's."""
    return shutil.copytree(EMBEDDED, tmp_path / "model")


def changed(model: Path, part: str, **keys) -> BaseConfigSection:
    names = {"scheduler": "scheduler_config.json", "": "model_index.json"}
    file = model / part / names.get(part, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return BaseConfigSection(name=str(model), device="cpu", dtype="float32")


def test_the_embedded_base_is_a_stable_diffusion_1():
    read = reader_of(EMBEDDED)
    assert family_of(str(EMBEDDED), read) is SD1
    shape = SD1.shape(read)
    assert (shape.factor, shape.side, shape.tokens) == (4, 32, 24)
    assert shape.latents == (16, 8, 8)
    assert set(SD1.targets) == {"attention", "feed_forward", "time", "convolution"}


@pytest.mark.parametrize(
    "keys", [{"addition_embed_type": "text_image"}, {"_class_name": "UNet3DConditionModel"}]
)
def test_a_base_of_no_known_family_is_refused(model, keys):
    changed(model, "", _class_name="KandinskyPipeline")
    section = changed(model, "unet", **keys)
    kind = keys.get("_class_name", "UNet2DConditionModel")
    with pytest.raises(ModelError) as refused:
        check_base(section, weights=False)
    said = str(refused.value)
    assert said.startswith(
        f"base.name: {model} is a KandinskyPipeline with {kind}, of no family that is known here; "
        "expected AuraFlow (an AuraFlowTransformer2DModel in transformer/, an AutoencoderKL in "
        "vae/, a UMT5EncoderModel in text_encoder/); Stable Diffusion 1.x, 2.x (a plain "
    )
    assert said.endswith("Fix: choose such a model")
    with pytest.raises(ModelError, match="of no family that is known here"):
        load_base(section, ("scheduler",))


def test_an_empty_folder_lacks_the_files_of_a_family(tmp_path):
    with pytest.raises(ModelError, match=r"base\.name: .* lacks unet/config\.json, .*nothing"):
        check_base(BaseConfigSection(name=str(tmp_path)))


def test_stable_diffusion_2_is_of_the_family_with_v_prediction(model):
    """Its own scheduler's settings; wider text and linear projections are the parts' own."""
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    kind = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
    section = changed(model, "scheduler", **kind, **betas)
    check_base(section)
    base = load_base(section)
    assert base.family is SD1 and base.prediction.kind == "v_prediction"
    with torch.no_grad():
        x, told = torch.randn(1, *base.latent_shape), base.condition(["a coat"])
        said = Denoiser(base, base.model)(x, torch.tensor([500]), told)
    assert torch.equal(said.velocity, said.raw) and said.clean.isfinite().all()


FAMILY = """
    from raysynth.models.families.stable_diffusion_1 import StableDiffusion1


    class Other(StableDiffusion1):
        title = "Other Diffusion"

        def recognises(self, read):
            return (read("unet") or {}).get("_class_name") == "OtherUNet"


    PART = Other()
"""


def test_a_family_of_another_package_is_recognised_and_loads(model, add_part):
    section = changed(model, "unet", _class_name="OtherUNet")
    with pytest.raises(ModelError, match="of no family"):
        check_base(section, weights=False)
    add_part("raysynth.models.families", "other", FAMILY)
    check_base(section, weights=False)
    base = load_base(section, ("model", "text"))
    assert base.family.title == "Other Diffusion"
    with torch.no_grad():
        x, told = torch.randn(1, *base.latent_shape), base.condition(["a coat"])
        said = Denoiser(base, base.model)(x, torch.tensor([500.0]), told)
    assert said.raw.shape == x.shape
