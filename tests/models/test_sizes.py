"""Sizes of other proportions than a base's squares."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.models.family import FAMILIES, reader_of
from raysynth.models.shape import Shape
from raysynth.models.sizes import nearest, placed, sizes_of
from raysynth.models.sources import EMBEDDED

SD15 = Shape(latents=(4, 64, 64), factor=8, tokens=77, grain=8)


def test_sizes_are_whole_units_of_no_more_pixels_and_no_longer_than_asked():
    assert sizes_of(SD15, 1.0) == ((512, 512),)
    found = sizes_of(SD15, 2.0)
    assert found[0] == (512, 512)
    assert set(found) == {(512, 512), (640, 384), (576, 448), (448, 576), (384, 640)}
    for most in (1.5, 3.0, 8.0):
        for height, width in sizes_of(SD15, most):
            assert height % 64 == width % 64 == 0 and height * width <= 512**2
            assert max(height / width, width / height) <= most


def test_an_image_goes_to_the_size_nearest_in_proportion():
    sizes = sizes_of(SD15, 2.0)
    images = [(1000, 1000), (3000, 2000), (2000, 3000), (1080, 1920), (100, 900), (512, 500)]
    found = [sizes[place] for place in nearest(images, sizes)]
    assert found == [(512, 512), (640, 384), (384, 640), (384, 640), (384, 640), (512, 512)]


def test_only_sizes_that_images_have_are_numbered():
    sizes, place = placed([(2, 1), (1, 1), (2, 1)], SD15, 2.0)
    assert [sizes[each] for each in place] == [(640, 384), (512, 512), (640, 384)]
    assert sorted(np.unique(place)) == [0, 1] and len(sizes) == 2


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_families_say_what_their_networks_halve(name):
    published = FAMILIES[name].published
    blocks = published.network.get("block_out_channels", ())
    assert published.shape.grain == max(2 ** max(len(blocks) - 1, 0), FAMILIES[name].patch)


def test_the_embedded_base_says_its_own():
    shape = FAMILIES["stable_diffusion_1"].shape(reader_of(EMBEDDED))
    assert (shape.side, shape.unit) == (32, 8)
