"""Files of other programs: read as diffusers reads them, whatever their names, ranks and alphas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from raysynth.adapters.banks import LoraBank
from raysynth.adapters.files import write_updates
from raysynth.adapters.foreign import read_file
from raysynth.adapters.grouped_lora import stack
from raysynth.adapters.layers import Form
from raysynth.adapters.record import file_of
from raysynth.errors import DamagedError, ModelError
from raysynth.models.base import load_base
from raysynth.publish.adapters import to_kohya
from tests.adapters.test_forms import disturbed, stacked
from tests.adapters.test_grouped_lora import inputs, load_unet, pipeline_of

NAME = "pytorch_lora_weights.safetensors"


def same(one, other):
    """Updates of the same effect: scales are compared, not how they are said."""
    assert one.keys() == other.keys()
    for name, update in one.items():
        theirs = other[name]
        assert update.form.scale == pytest.approx(theirs.form.scale)
        assert torch.equal(update.A, theirs.A) and torch.equal(update.B, theirs.B)
        assert (update.M is None) == (theirs.M is None)
        assert update.M is None or torch.equal(update.M, theirs.M)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_kohyas_file_is_read_as_it_was_exported(room, tmp_path, rslora, dora):
    _, lora = stacked(room, rslora, dora)
    updates = disturbed(lora).updates(1)
    save_file(to_kohya(updates), tmp_path / "one.safetensors")
    read = read_file(str(tmp_path / "one.safetensors"), "unet", {"unet": load_unet(room)})
    same(read, updates)
    kept = load_file(tmp_path / "one.safetensors")
    scales = {tuple(v.shape) for k, v in kept.items() if k.endswith(".dora_scale")}
    assert (len(scales) > 0) is dora and all(set(shape[1:]) == {1} for shape in scales)


def test_text_encoders_layers_are_read_by_kohyas_and_diffusers_names(room, tmp_path):
    base = replace(load_base(room.config().base), live=True)
    targets = base.family.text_targets["text"]
    names = [n for n, _ in base.network.named_modules() if n.endswith((*targets, "attn1.to_q"))]
    lora = stack(base.network, {n: Form(2, 1.0 + k % 2) for k, n in enumerate(names)}, 1, "")
    lora.reset(0, torch.Generator().manual_seed(0))
    updates = disturbed(lora).updates(0)
    assert {name.partition(".")[0] for name in updates} == {"text_encoder", "unet"}
    save_file(to_kohya(updates), tmp_path / "one.safetensors")
    same(read_file(str(tmp_path / "one.safetensors"), "unet", base.parts), updates)
    older = {k.replace("text_encoder.", "text_encoder.text_model."): u for k, u in updates.items()}
    write_updates(older, str(tmp_path))
    same(read_file(str(tmp_path), "unet", base.parts), updates)


def test_pefts_folder_is_read(room, tmp_path):
    config = LoraConfig(
        r=3,
        lora_alpha=2,
        target_modules=["to_q", "conv1"],
        rank_pattern={"conv1": 1},
        alpha_pattern={"attn1.to_q": 5},
        init_lora_weights=False,
        use_rslora=True,
    )
    model = get_peft_model(load_unet(room), config)
    model.save_pretrained(tmp_path)
    read = read_file(str(tmp_path), "unet", {"unet": load_unet(room)})
    for name, update in read.items():
        module = model.base_model.model.get_submodule(name.removeprefix("unet."))
        assert update.form.scale == pytest.approx(module.scaling["default"])
        assert torch.equal(update.A, module.lora_A["default"].weight)
    assert {update.form.rank for update in read.values()} == {1, 3}
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"adapter_config\.json: cannot be read.*Fix"):
        read_file(str(tmp_path), "unet", {"unet": load_unet(room)})


def test_files_of_several_forms_and_ranks_generate_in_one_batch(room, tmp_path):
    """A DoRA, one of few layers by kohya's names with alphas, and one of another rank."""
    _, lora = stacked(room, False, True)
    disturbed(lora).save(1, str(tmp_path / "dora"))
    _, plain = stacked(room, False, False)
    updates = disturbed(plain).updates(2)
    some = {n: u for k, (n, u) in enumerate(updates.items()) if k % 3}
    some = {n: replace(u, form=replace(u.form, alpha=1.0 + len(n) % 3)) for n, u in some.items()}
    save_file(to_kohya(some), tmp_path / "kohya.safetensors")
    write_updates(some, str(tmp_path / "as peft"))  # of kohya's diffusers loses some alphas
    plain.save(0, str(tmp_path / "plain"))
    files = {name: str(tmp_path / name) for name in ("dora", "kohya.safetensors", "plain")}
    base = load_base(room.config().base)
    bank = LoraBank.of_files(base, files)
    x, t, text = inputs(6)
    rows = ["plain", "dora", "dora", "kohya.safetensors", "plain", "dora"]
    with torch.no_grad():
        mixed = bank.use(rows, 1)(x, t, text).sample
        for name, file in files.items():
            pipeline: StableDiffusionPipeline = pipeline_of(room)
            pipeline.load_lora_weights(file.replace("kohya.safetensors", "as peft"))
            own = [row for row, of in enumerate(rows) if of == name]
            theirs = pipeline.unet(x[own], t[own], text[own]).sample
            alone = bank.use([name], 1)(x[own], t[own], text[own]).sample
            torch.testing.assert_close(mixed[own], theirs, rtol=1e-4, atol=2e-5)
            torch.testing.assert_close(alone, theirs, rtol=1e-4, atol=2e-5)


def test_an_adapter_of_another_base_is_refused(room, tmp_path):
    unet = load_unet(room)
    unet.add_module("extra", torch.nn.Linear(3, 3))
    lora = stack(unet, {"extra": Form(1, 1.0)}, 1)
    lora.save(0, str(tmp_path))
    with pytest.raises(ModelError, match=r"unet\.extra: no layer of the UNet2D"):
        LoraBank.of_files(load_base(room.config().base), {"one": str(tmp_path)})


BROKEN = {
    "no pair": ({"unet.a.lora_A.weight": torch.ones(1, 2)}, "no low-rank update"),
    "something else": ({"first.weight": torch.ones(2)}, "no low-rank update"),
    "not finite": ({"unet.a.lora_A.weight": torch.full((1, 2), torch.nan)}, "not finite"),
    "LoHa": ({"lora_unet_mid_block_x.hada_w1_a": torch.ones(2, 2)}, "is no low-rank update that"),
    "columns": (
        {
            "lora_unet_mid_block_resnets_0_conv1.lora_down.weight": torch.ones(1, 3, 3, 3),
            "lora_unet_mid_block_resnets_0_conv1.lora_up.weight": torch.ones(4, 1, 1, 1),
            "lora_unet_mid_block_resnets_0_conv1.dora_scale": torch.ones(1, 3, 1, 1),
        },
        "lengths of columns",
    ),
}


@pytest.mark.parametrize(("tensors", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_adapter_is_refused(room, tmp_path, tensors, message):
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(ModelError, match=f"{message}.*Fix"):
        read_file(str(tmp_path / "one.safetensors"), "unet", {"unet": load_unet(room)})


def test_a_file_that_is_cut_off_or_gone_is_refused(room, tmp_path):
    with pytest.raises(ModelError, match=r"no adapter at .*Fix"):
        file_of(str(tmp_path))
    (tmp_path / NAME).write_bytes(b"\0" * 7)
    with pytest.raises(DamagedError, match="cannot be read"):
        read_file(str(tmp_path), "unet", {"unet": load_unet(room)})


def test_kohyas_names_are_those_of_diffusers_converter(room, tmp_path):
    """What other programs read does not depend on what is written beside it."""
    _, lora = stacked(room, False, False)
    lora.save(0, str(tmp_path))
    theirs = convert_state_dict_to_kohya(load_file(tmp_path / NAME))
    assert to_kohya(lora.updates(0)).keys() == theirs.keys()
