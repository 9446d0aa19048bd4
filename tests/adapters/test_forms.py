"""Ranks and alphas beside one another, rsLoRA and DoRA: equal to PEFT, alone, packed and mixed."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig

from raysynth.adapters.files import read_updates
from raysynth.adapters.fold import FoldedUNet
from raysynth.adapters.grouped_lora import inject, restack, stack
from raysynth.adapters.layers import Form
from raysynth.adapters.rows import clip_rows, flatten
from raysynth.errors import ModelError
from tests.adapters.test_grouped_lora import (
    FAMILY,
    assert_same_weights,
    inputs,
    load_unet,
    pipeline_of,
    trained,
)

RANKS, ALPHAS = (1, 3, 2), (3.0, 1.5, 3.0)
KINDS = {"ranks": (False, False), "rslora": (True, False), "dora": (False, True)}
KINDS |= {"both": (True, True)}
every_kind = pytest.mark.parametrize(("rslora", "dora"), KINDS.values(), ids=KINDS.keys())


def stacked(room, rslora, dora, adapters=3):
    unet = load_unet(room)
    lora = inject(unet, FAMILY.targets, max(RANKS), 3.0, adapters, rslora=rslora, dora=dora)
    for position in range(adapters):
        dice = torch.Generator().manual_seed(position)
        lora.reset(position, dice, RANKS[position], ALPHAS[position])
    return unet, lora


def disturbed(lora):
    """Away from zero effect, what fills the stacks up left zero."""
    dice = torch.Generator().manual_seed(3)
    for layer in lora.layers.values():
        for position, form in enumerate(layer.forms):
            own = layer.B.data[position, :, : form.rank]
            own.copy_(torch.randn(own.shape, generator=dice) * 0.3)
        if layer.M is not None:
            layer.M.data.mul_(torch.rand(layer.M.shape, generator=dice) + 0.5)
    return lora


def peft_unet(room, lora, position, rslora, dora):
    unet = load_unet(room)
    config = LoraConfig(
        r=RANKS[position],
        lora_alpha=ALPHAS[position],
        target_modules=sorted(lora.layers),
        use_rslora=rslora,
        use_dora=dora,
    )
    unet.add_adapter(config)
    with torch.no_grad():
        for name, layer in lora.layers.items():
            module, rank = unet.get_submodule(name), RANKS[position]
            module.lora_A["default"].weight.copy_(layer.A[position, :rank])
            module.lora_B["default"].weight.copy_(layer.B[position, :, :rank])
            if dora:
                kept = module.lora_magnitude_vector["default"].weight
                start = layer.M[position].view_as(kept)
                if not layer.B[position].any():  # both begin where the base is
                    torch.testing.assert_close(kept, start, rtol=1e-5, atol=1e-6)
                kept.copy_(start)
    return unet


@every_kind
def test_training_packed_equals_training_with_peft(room, rslora, dora):
    """Same noise and data: losses and weights agree after AdamW steps with clipping per adapter."""
    adapters, batch, steps = len(RANKS), 2, 4
    unet, lora = stacked(room, rslora, dora)
    singles = [peft_unet(room, lora, p, rslora, dora) for p in range(adapters)]
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
        for p, single in enumerate(singles):
            part = slice(p * batch, (p + 1) * batch)
            loss = (single(x[part], t[part], text[part]).sample - x[part]).square().mean()
            optimizers[p].zero_grad()
            loss.backward()
            torch.testing.assert_close(packed[p], loss, rtol=1e-4, atol=1e-5)
            if number == 0:
                assert_same_gradients(lora, p, single)
            torch.nn.utils.clip_grad_norm_(trained(single), 0.05)
            optimizers[p].step()
        clip_rows(rows.gradients, 0.05)
        optimizer.step()
    for p, single in enumerate(singles):
        for name, layer in lora.layers.items():
            theirs, rank = single.get_submodule(name), RANKS[p]
            assert_same_weights(layer.A[p, :rank], theirs.lora_A["default"].weight)
            assert_same_weights(layer.B[p, :, :rank], theirs.lora_B["default"].weight)
            assert not layer.A[p, rank:].any() and not layer.B[p, :, rank:].any()
            if dora:
                kept = theirs.lora_magnitude_vector["default"].weight
                assert_same_weights(layer.M[p], kept.view(-1))


def assert_same_gradients(lora, position, single):
    for name, layer in lora.layers.items():
        theirs, rank = single.get_submodule(name), RANKS[position]
        pairs = [(layer.A.grad[position, :rank], theirs.lora_A["default"].weight.grad)]
        pairs += [(layer.B.grad[position, :, :rank], theirs.lora_B["default"].weight.grad)]
        if layer.M is not None:
            kept = theirs.lora_magnitude_vector["default"].weight.grad
            pairs += [(layer.M.grad[position], kept.view(-1))]
        for ours, other in pairs:
            torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-6)


@every_kind
def test_every_adapter_equals_its_file_loaded_by_diffusers(room, tmp_path, rslora, dora):
    """In a mixed batch with rows of the base, settled or not, and folded."""
    unet, lora = stacked(room, rslora, dora)
    disturbed(lora)
    folded = FoldedUNet(unet, lora)
    index = [2, 0, -1, 1, 2]
    x, t, text = inputs(len(index))
    lora.route(index)
    with torch.no_grad():
        mixed = unet(x, t, text).sample
        lora.settle()
        torch.testing.assert_close(unet(x, t, text).sample, mixed, rtol=1e-5, atol=1e-6)
        plain = load_unet(room)(x, t, text).sample
    torch.testing.assert_close(mixed[2], plain[2], rtol=1e-4, atol=1e-5)
    for position in range(3):
        lora.save(position, str(tmp_path / str(position)))
        pipeline = pipeline_of(room)
        pipeline.load_lora_weights(str(tmp_path / str(position)))
        rows = [row for row, own in enumerate(index) if own == position]
        with torch.no_grad():
            theirs = pipeline.unet(x[rows], t[rows], text[rows]).sample
            alone = folded.use(position)(x[rows], t[rows], text[rows]).sample
        assert (theirs - plain[rows]).abs().max() > 0.01
        torch.testing.assert_close(mixed[rows], theirs, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(alone, theirs, rtol=1e-4, atol=2e-5)


@every_kind
def test_files_come_back_in_the_form_they_were_saved_in(room, tmp_path, rslora, dora):
    _, lora = stacked(room, rslora, dora)
    disturbed(lora).save(1, str(tmp_path))
    _, other = stacked(room, rslora, dora)
    other.load(2, str(tmp_path))
    for mine, theirs in zip(lora.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine[1], theirs[2])
    assert [x.forms[1] for x in lora.layers.values()] == [x.forms[2] for x in other.layers.values()]


def test_layers_of_one_adapter_have_ranks_and_alphas_of_their_own(room, tmp_path):
    """Written as PEFT's patterns, which diffusers reads."""
    unet = load_unet(room)
    names = [n for n, m in unet.named_modules() if n.endswith(("to_q", "to_k", "conv1"))]
    forms = {n: Form(1 + k % 3, 2.0 + k % 2) for k, n in enumerate(names)}
    lora = stack(unet, forms, 2)
    for position in range(2):
        lora.reset(position, torch.Generator().manual_seed(position))
    disturbed(lora).save(1, str(tmp_path))
    assert {n: u.form for n, u in read_updates(str(tmp_path)).items()} == {
        f"unet.{n}": form for n, form in forms.items()
    }
    x, t, text = inputs(2)
    lora.route([1, 1])
    pipeline: StableDiffusionPipeline = pipeline_of(room)
    pipeline.load_lora_weights(str(tmp_path))
    with torch.no_grad():
        ours, theirs = unet(x, t, text).sample, pipeline.unet(x, t, text).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_adapter_without_an_update_of_a_layer_leaves_it(room):
    unet, lora = stacked(room, False, True)
    updates = disturbed(lora).updates(0)
    some = {n: u for n, u in updates.items() if "attn" in n}
    lora.clear(1)
    lora.put(1, some)
    other = inject(load_unet(room), {"attention": FAMILY.targets["attention"]}, 3, 3.0, 1)
    with pytest.raises(ModelError, match="is not adapted"):
        other.put(0, updates)
    reference = stack(
        load_unet(room), {n.removeprefix("unet."): u.form for n, u in some.items()}, 1
    )
    reference.put(0, some)
    x, t, text = inputs(2)
    lora.route([1, 1])
    with torch.no_grad():
        ours = unet(x, t, text).sample
        alone = FoldedUNet(unet, lora).use(1)(x, t, text).sample
    torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-5)


def test_stacks_made_anew_are_at_zero_effect(room):
    unet, lora = stacked(room, True, True)
    disturbed(lora)
    again = restack(lora, 2)
    for position in range(2):
        again.reset(position, torch.Generator().manual_seed(position))
    assert again.parameters()[0].shape[0] == 2
    x, t, text = inputs(2)
    again.route([0, 1])
    with torch.no_grad():
        ours, plain = unet(x, t, text).sample, load_unet(room)(x, t, text).sample
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_a_scale_is_said_in_loras_own_terms():
    form = Form(4, 6.0, rslora=True)
    assert form.scale == 3.0 and form.plain == Form(4, 12.0)
    assert form.plain.scale == form.scale and not Form(0, 1.0).scale
    assert math.isclose(Form(3, 1.5, rslora=True).plain.scale, 1.5 / math.sqrt(3))


def test_half_precision_keeps_what_lengths_are_near_one(room):
    """A gain within bfloat16's rounding of one is not lost to it."""
    layer = torch.nn.Linear(8, 4).bfloat16()
    lora = stack(torch.nn.Sequential(layer), {"0": Form(1, 1.0, dora=True)}, 1)
    lora.reset(0, torch.Generator().manual_seed(0))
    grouped = lora.layers["0"]
    grouped.M.data *= 1.003
    lora.route([0] * 512)
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.no_grad():
        h = layer(x).float() - layer.bias.float()
        gained = (grouped(x).float() - layer.bias.float()) / h
    assert abs(float(gained[h.abs() > 0.5].mean()) - 1.003) < 1e-3
