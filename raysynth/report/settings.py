"""The knobs of `report`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raysynth.knobs import Section, knob

IMAGES, MEGABYTES = 8000, 256


class ReportConfig(Section):
    """How much the gallery beside the page holds; what is left out is said there."""

    gallery_images: Annotated[int, Field(ge=0)] = knob(
        IMAGES,
        "Most generated images in gallery.html, as many of every group; 0: no gallery.",
        neutral=IMAGES,
    )
    full_size_megabytes: Annotated[int, Field(ge=0)] = knob(
        MEGABYTES,
        "Most MB of full-size images beside it, where thumbnails (96 pixels) are reduced.",
        neutral=MEGABYTES,
    )
