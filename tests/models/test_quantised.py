"""A quantised base: its layers multiply as their own numbers do, and nothing keeps these."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from raysynth.errors import ConfigError, ModelError
from raysynth.models import quantisation
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.quantisation import KINDS, bytes_of, check_quantisation, in_words
from raysynth.models.quantised import QuantisedLinear, kept_bytes, quantise
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_base
from tests.models.random_families import WRITERS, write_family

INPUTS, OUTPUTS = 96, 40
CPU = torch.device("cpu")
needs_library = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="the extra quantization is not installed"
)
FORMS = [
    pytest.param(form, marks=needs_library if kind.packages else ()) for form, kind in KINDS.items()
]
STEP = {"int8": 1 / 254, "nf4": 0.16}
"""The most that a number may move, of the largest beside it."""


@pytest.fixture
def pair(request):
    """A quantised layer, and a plain one with the same numbers."""
    torch.manual_seed(0)
    plain = nn.Linear(INPUTS, OUTPUTS).requires_grad_(False)
    network = nn.Sequential(nn.Linear(INPUTS, OUTPUTS).requires_grad_(False))
    network.load_state_dict({f"0.{key}": value for key, value in plain.state_dict().items()})
    quantise(network, request.param, CPU)
    before = plain.weight.clone()
    plain.weight.data = network[0].weight.clone()
    return network[0], plain, before, request.param


both = pytest.mark.parametrize("pair", FORMS, indirect=True)


@both
def test_numbers_move_by_half_a_step_at_most(pair):
    layer, plain, before, form = pair
    assert isinstance(layer, QuantisedLinear) and isinstance(layer, nn.Linear)
    moved = (plain.weight - before).abs()
    assert 0 < moved.max() <= STEP[form] * before.abs().max() * 1.001
    assert layer.packed.nbytes == bytes_of(form, OUTPUTS, INPUTS)
    assert layer.packed.nbytes < before.nbytes / (3.5 if form == "int8" else 6.5)


@both
@pytest.mark.parametrize("narrow", [False, True])
def test_products_and_gradients_are_those_of_its_numbers(pair, narrow):
    layer, plain, _, _ = pair
    x = torch.randn(5, 3, INPUTS, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        mine, theirs = layer(x), plain(x)
        with torch.no_grad():
            assert torch.equal(layer(x), mine)
    assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    (one,), (other,) = (torch.autograd.grad(y.square().sum(), x) for y in (mine, theirs))
    torch.testing.assert_close(one, other, rtol=1e-6 if not narrow else 1e-2, atol=1e-6)


@both
def test_gradients_of_gradients_are_those_of_its_numbers(pair):
    found = []
    for layer in pair[:2]:
        x = torch.linspace(-1, 1, INPUTS).requires_grad_(True)
        (first,) = torch.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*found)
    assert found[0].abs().max() > 0


@both
def test_nothing_of_a_layers_size_is_kept_for_the_backward_pass(pair):
    kept: list[int] = []
    x = torch.randn(2, INPUTS, requires_grad=True)

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        pair[0](x)
    assert max(kept, default=0) < INPUTS * OUTPUTS


def section(folder: Path, form: str = "none") -> BaseConfigSection:
    return BaseConfigSection(name=str(folder), device="cpu", dtype="float32", quantization=form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", list(WRITERS))
def test_linear_layers_of_network_and_encoders_are_quantised(tmp_path, name, form):
    torch.set_num_threads(1)
    folder = write_family(name, tmp_path / name)
    check_base(section(folder, form))
    plain, base = load_base(section(folder)), load_base(section(folder, form))
    for part, model in base.parts.items():
        if not isinstance(model, nn.Module):
            continue
        linear = [n for n, m in plain.parts[part].named_modules() if type(m) is nn.Linear]
        found = [n for n, m in model.named_modules() if isinstance(m, QuantisedLinear)]
        assert found == ([] if part == "vae" else linear), part
        weights = (plain.parts[part].get_submodule(n).weight for n in found)
        spared = sum(w.nbytes - bytes_of(form, *w.shape) for w in weights)
        assert kept_bytes(model) == kept_bytes(plain.parts[part]) - spared
    said = []
    for each in (plain, base):
        x = torch.randn(2, *each.latent_shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            told = each.condition(["a photo of a coat on grass", "a pullover"])
            said.append(Denoiser(each, each.model)(x, torch.full((2,), 500.0), told).raw)
    distance = float((said[1] - said[0]).norm() / said[0].norm())
    assert 0 < distance < (0.02 if form == "int8" else 0.3)


def test_what_is_not_installed_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(quantisation, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"quantization=nf4: needs bitsandbytes.*Fix: pip inst"):
        check_base(BaseConfigSection(quantization="nf4"))
    check_base(BaseConfigSection(quantization="int8"))


def test_devices_without_a_form_are_refused(monkeypatch):
    monkeypatch.setattr(quantisation, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"nf4: got base\.device=mps, expected.*Fix: .*=int8"):
        check_quantisation(BaseConfigSection(quantization="nf4", device="mps"))
    check_quantisation(BaseConfigSection(quantization="nf4", device="cuda:1"))
    with pytest.raises(ModelError, match=r"int8: there is no such form on .*Fix"):
        quantise(nn.Sequential(nn.Linear(2, 2)), "int8", torch.device("xpu"))


def test_cards_say_it():
    assert in_words(BaseConfigSection()) == ""
    assert "8-bit integers (int8)" in in_words(BaseConfigSection(quantization="int8"))
