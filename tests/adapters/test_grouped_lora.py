"""Stacked adapters: equal to PEFT, routed by row, exchanged as files."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from safetensors import safe_open

from raysynth.adapters.grouped_lora import inject
from raysynth.adapters.rows import clip_rows, flatten
from raysynth.errors import ConfigError, DamagedError, ModelError
from raysynth.models.base import load_base
from raysynth.models.family import FAMILIES, USUAL, layers_of

FAMILY = FAMILIES[USUAL]
ALL = tuple(FAMILY.targets)
RANK, ALPHA = 2, 3.0


def load_unet(room) -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_pretrained(room.base, subfolder="unet")
    return unet.eval().requires_grad_(False)


def random_lora(unet, adapters, targets=ALL):
    lora = inject(unet, layers_of(FAMILY, targets), RANK, ALPHA, adapters)
    dice = torch.Generator().manual_seed(3)
    for position in range(adapters):
        lora.reset(position, dice)
    for layer in lora.layers.values():
        layer.B.data.copy_(torch.randn(layer.B.shape, generator=dice) * 0.3)
    return lora


def inputs(rows):
    dice = torch.Generator().manual_seed(5)
    latents = torch.randn(rows, 4, 8, 8, generator=dice)
    return latents, torch.linspace(50, 950, rows), torch.randn(rows, 24, 32, generator=dice)


def pipeline_of(room) -> StableDiffusionPipeline:
    base = load_base(room.config().base)
    return base.family.pipeline(base)


@pytest.mark.parametrize("targets", [("attention",), ALL])
def test_every_adapter_equals_the_file_loaded_by_diffusers(room, tmp_path, targets):
    unet = load_unet(room)
    lora = random_lora(unet, 3, targets)
    x, t, text = inputs(2)
    for position in range(3):
        lora.save(position, str(tmp_path / str(position)))
        lora.route([position, position])
        with torch.no_grad():
            ours = unet(x, t, text).sample
            pipeline = pipeline_of(room)
            plain = pipeline.unet(x, t, text).sample
            pipeline.load_lora_weights(str(tmp_path / str(position)))
            theirs = pipeline.unet(x, t, text).sample
        assert (ours - plain).abs().max() > 0.01
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_files_come_back_as_they_were_saved(room, tmp_path):
    lora = random_lora(load_unet(room), 2)
    lora.save(1, str(tmp_path))
    other = inject(load_unet(room), FAMILY.targets, RANK, ALPHA, 3)
    other.load(2, str(tmp_path))
    for mine, theirs in zip(lora.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine[1], theirs[2])


ROUTES = {
    "blocks": [0, 0, 1, 1, 2, 2],
    "with plain rows": [-1, -1, 2, 2, 0, 0],
    "mixed": [2, 0, -1, 1, 0, 2],
    "one": [1, 1, 1, 1, 1, 1],
    "doubled for CFG": [0, 1, 2, 0, 1, 2],
}


@pytest.mark.parametrize("index", ROUTES.values(), ids=ROUTES.keys())
def test_rows_of_a_mixed_batch_use_their_own_adapter(room, index):
    unet = load_unet(room)
    plain = load_unet(room)
    lora = random_lora(unet, 3)
    x, t, text = inputs(6)
    with torch.no_grad():
        lora.route(torch.tensor(index))
        mixed = unet(x, t, text).sample
        for row, adapter in enumerate(index):
            part = (x[row : row + 1], t[row : row + 1], text[row : row + 1])
            lora.route([adapter])
            alone = unet(*part).sample if adapter >= 0 else plain(*part).sample
            torch.testing.assert_close(mixed[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_unrouted_batch_is_refused(room):
    unet = load_unet(room)
    lora = random_lora(unet, 2)
    lora.route([0, 1])
    with pytest.raises(RuntimeError, match="doubled batch"):
        unet(*inputs(4))


def test_target_without_a_layer_is_named(room):
    with pytest.raises(ConfigError, match=r"finetune\.targets: 'rotary'"):
        inject(load_unet(room), layers_of(FAMILY, ("attention", "rotary")), RANK, ALPHA, 1)


@pytest.mark.parametrize(
    ("targets", "rank", "dora", "message"),
    [
        (("attention",), RANK, False, "finetune.targets"),
        (ALL, RANK - 1, False, "finetune.rank"),
        (ALL, RANK, True, "finetune.dora"),
    ],
)
def test_adapter_of_other_settings_is_refused(room, tmp_path, targets, rank, dora, message):
    random_lora(load_unet(room), 1).save(0, str(tmp_path))
    layers = layers_of(FAMILY, targets)
    with pytest.raises(ModelError, match=message):
        inject(load_unet(room), layers, rank, ALPHA, 1, dora=dora).load(0, str(tmp_path))


def test_adapter_that_is_not_finite_is_refused(room, tmp_path):
    lora = random_lora(load_unet(room), 1)
    next(iter(lora.layers.values())).A.data[0, 0] = float("nan")
    lora.save(0, str(tmp_path))
    with pytest.raises(DamagedError, match=r"1 of \d+ tensors are not finite.*Fix") as refused:
        lora.load(0, str(tmp_path))
    assert refused.value.path == f"{tmp_path}/pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("kept", [None, 0, 30, 500])
def test_an_adapter_that_is_gone_or_cut_off_is_to_be_made_again(room, tmp_path, kept):
    lora = random_lora(load_unet(room), 1)
    lora.save(0, str(tmp_path))
    file = tmp_path / "pytorch_lora_weights.safetensors"
    whole = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(whole[:kept])
    with pytest.raises(DamagedError, match=r"safetensors: cannot be read.*Fix") as refused:
        lora.load(0, str(tmp_path))
    assert refused.value.path == str(file)


@pytest.mark.parametrize("targets", [("attention", "feed_forward", "time"), ALL])
def test_training_packed_equals_training_with_peft(room, targets):
    """Same noise and data: losses and weights agree after AdamW steps with clipping per adapter."""
    adapters, batch, steps = 3, 2, 4
    unet = load_unet(room)
    lora = inject(unet, layers_of(FAMILY, targets), RANK, ALPHA, adapters)
    for position in range(adapters):
        lora.reset(position, torch.Generator().manual_seed(position))
    singles = [peft_unet(room, lora, position) for position in range(adapters)]
    lora.route(torch.arange(adapters).repeat_interleave(batch))
    rows = flatten(lora.parameters(), adapters)
    optimizer = torch.optim.AdamW([{"params": [r]} for r in rows.parameters], lr=1e-2, fused=True)
    optimizers = [torch.optim.AdamW(trained(single), lr=1e-2) for single in singles]
    for number in range(steps):
        dice = torch.Generator().manual_seed(100 + number)
        x = torch.randn(adapters * batch, 4, 8, 8, generator=dice)
        text = torch.randn(adapters * batch, 24, 32, generator=dice)
        t = torch.rand(adapters * batch, generator=dice) * 1000
        rows.gradients.zero_()
        packed = (unet(x, t, text).sample - x).square().view(adapters, -1).mean(1)
        packed.sum().backward()
        clip_rows(rows.gradients, 0.05)
        optimizer.step()
        for p, single in enumerate(singles):
            part = slice(p * batch, (p + 1) * batch)
            loss = (single(x[part], t[part], text[part]).sample - x[part]).square().mean()
            optimizers[p].zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained(single), 0.05)
            optimizers[p].step()
            torch.testing.assert_close(packed[p], loss, rtol=1e-4, atol=1e-5)
    for p, single in enumerate(singles):
        for name, layer in lora.layers.items():
            theirs = single.get_submodule(name)
            assert_same_weights(layer.A[p], theirs.lora_A["default"].weight)
            assert_same_weights(layer.B[p], theirs.lora_B["default"].weight)


def assert_same_weights(ours, theirs):
    """AdamW's first steps divide by |g|, which amplifies rounding where gradients vanish."""
    assert (ours - theirs).abs().quantile(0.99) < 2e-4
    assert (ours - theirs).abs().max() < 1e-2


def peft_unet(room, lora, position):
    unet = load_unet(room)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=sorted(lora.layers)))
    with torch.no_grad():
        for name, layer in lora.layers.items():
            module = unet.get_submodule(name)
            module.lora_A["default"].weight.copy_(layer.A[position])
            module.lora_B["default"].weight.copy_(layer.B[position])
    return unet


def trained(unet):
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def test_a_file_says_its_layers_in_an_order_that_no_run_changes(room, tmp_path):
    """PEFT's configuration holds them as a set, whose order Python draws anew in every process."""
    random_lora(load_unet(room), 1).save(0, str(tmp_path))
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        said = json.loads(file.metadata()["lora_adapter_metadata"])
    named = said["unet.target_modules"]
    assert len(named) > 9 and named == sorted(named)


def test_an_adapter_is_the_same_bytes_each_time_it_is_written(room, tmp_path):
    """safetensors' own writer takes a file's metadata in another order each time."""
    lora = random_lora(load_unet(room), 1)
    for number in range(8):  # by chance alone, 1 of 128
        lora.save(0, str(tmp_path / str(number)))
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 8 and len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], "pt") as file:
        assert sorted(file.metadata()) == ["format", "lora_adapter_metadata"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert all(tensor.isfinite().all() and tensor.any() for tensor in tensors.values())
