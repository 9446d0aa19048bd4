"""DiffEdit's masks: where the words differ, what stays, and that no image depends on its batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysynth.datasets.outfits import Outfits
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.latents import encode
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.tables import decode_bytes
from raysynth.synthesis.contrast import Contrast, contrasts
from raysynth.synthesis.denoise import Edited, denoise, draw_noise
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.masks import attribute_mask, otsu, spread_over
from raysynth.synthesis.solver import build_solver
from raysynth.synthesis.specs import image_seed
from raysynth.synthesis.task import Drawing
from tests.synthesis.conftest import COUNTS, GROUPS
from tests.synthesis.test_sources import PROMPT, sources


@pytest.fixture
def generate(make_config):
    def make(**synthesis) -> ImageGenerator:
        config = make_config(generator="edit", synthesis=synthesis)
        return ImageGenerator(Drawing.of(config), "", ())

    return make


def told(count: int) -> list[Contrast]:
    return [contrasts(PromptConfig(), GROUPS, COUNTS)[2]] * count


def test_otsu_parts_two_heaps_whatever_their_sizes():
    few = torch.tensor([[0.1, 0.2, 0.1, 0.9, 0.15, 0.2]])
    assert otsu(few).tolist() == [[0, 0, 0, 1, 0, 0]]
    assert otsu(1 - few).tolist() == [[1, 1, 1, 0, 1, 1]]
    both = torch.cat([few, 100 * few + 5])
    assert torch.equal(otsu(both)[0], otsu(both)[1]), "scale and offset do not matter"


def test_every_group_is_contrasted_with_another_attribute():
    groups = Groups(("a", "b"), ("x", "y", "z"), ("a", "b"), ("x", "y", "z"))
    found = contrasts(PromptConfig(), groups, counts=[9, 1, 1, 1, 1, 9])
    words = [(c.true.split()[-3::2], c.other.split()[-1]) for c in found]
    assert words == [
        *((["a", "x"], other) for other in ("y", "y", "z")),
        *((["b", "z"], other) for other in ("x", "y", "x")),
    ]


def test_every_image_takes_its_own_value_of_a_range():
    seeds = [image_seed(0, 1, 0, index) for index in range(200)]
    values = spread_over((0.2, 0.6), seeds)
    assert torch.equal(values[7:8], spread_over((0.2, 0.6), seeds[7:8]))
    assert 0.2 <= values.min() < 0.22 and 0.58 < values.max() <= 0.6
    assert abs(float(values.mean()) - 0.4) < 0.03
    assert spread_over((0.5, 0.5), seeds).unique().tolist() == [0.5]


def masks(generate: ImageGenerator, seeds: list[int]) -> torch.Tensor:
    (part,) = generate.prepare(
        *([PROMPT] * len(seeds), [""] * len(seeds), [""] * len(seeds)),
        seeds,
        sources(4)[: len(seeds)],
        told(len(seeds)),
    )
    edited = generate._edited(part)
    assert edited is not None and edited.mask is not None
    return edited.mask


def test_a_mask_depends_on_its_own_image_and_seed_only(generate):
    together = masks(generate(), [5, 6, 7])
    assert together.shape == (3, 1, 8, 8) and set(together.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masks(generate(), [5, 6])[0], together[0])
    wider = masks(generate(mask_margin=2), [5, 6, 7])
    assert (wider >= together).all() and wider.sum() > together.sum()


@pytest.mark.parametrize("solver", ["dpmsolver++", "unipc", "base"])
def test_outside_the_mask_the_real_image_stays(generate, solver):
    base = (made := generate(solver=solver)).base
    latents = encode(base, decode_bytes(sources(2), 32))
    noise, generators = draw_noise([1, 2], latents.shape[1:])
    told, denoiser = made._text([PROMPT] * 2), Denoiser(base, base.model)
    left = torch.zeros(2, 1, 8, 8)
    left[..., :4] = 1.0

    def edit(mask, outside: float) -> torch.Tensor:
        edited = Edited(latents, 1.0, mask, torch.tensor([outside, 0.0]))
        guide = guide_of((), 1.0)
        return denoise(
            lambda copies: denoiser, made.solver, noise, generators, told, guide, 4, edited
        )

    kept = edit(left, 0.0)
    assert torch.equal(kept[..., 4:], latents[..., 4:])
    assert (kept - latents)[..., :4].abs().mean() > 0.1
    changes = [
        (edit(left, outside) - latents)[..., 4:].abs().mean((1, 2, 3)) for outside in (0.3, 0.8)
    ]
    assert 0 < changes[0][0] < changes[1][0]
    assert changes[0][1] == changes[1][1] == 0, "the other image has a strength of its own"
    assert torch.equal(edit(torch.ones_like(left), 0.0), edit(None, 0.0))


def test_the_words_find_the_ground():
    """The embedded base, never fine-tuned on these images, and real outfits."""
    base = load_base(BaseConfigSection())
    outfits = Outfits(train_images=40, validation_images=4, test_images=4, severity=0.9)
    listing = outfits.listing()
    rows = listing.filter(np.array(listing["label"].to_pylist()) == 0).slice(0, 16)
    pixels = decode_bytes(pa.array(outfits.images(rows)), 32)
    words = ["a photo of a pullover on grass", "a photo of a pullover on gravel"]
    told = base.condition([w for w in words for _ in range(len(pixels))])
    solver = build_solver("dpmsolver++", base.scheduler)
    latents = encode(base, pixels)
    drawn = (solver, latents, told, list(range(len(pixels))), 0)
    mask = attribute_mask(Denoiser(base, base.model), *drawn)[:, 0].numpy()
    edge = np.concatenate([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], axis=1).mean()
    assert edge > 0.7 and mask[:, 3:5, 3:5].mean() < 0.2
