"""The knobs of `fidelity`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raysynth.knobs import Named, Place, Section, knob

AUTO = "auto"
KEY = "fidelity.encoder"
"""What messages call the knob."""
REAL_ONLY = "real_only"
"""`selection.on_unfaithful`: no synthetic image is used."""


class FidelityConfig(Section):
    """How far kept images show their label, look like real ones and vary as they do."""

    encoder: Place = knob(
        AUTO,
        "Whose space images are compared in; auto: one that neither the generator nor selection "
        "knows (classifier.backbone small: the embedded network of other garments; another one: "
        "that, pretrained); or as for clustering.encoder.",
    )
    encoder_revision: Named | None = knob(None, "Hub revision of `encoder`, as base.revision.")
    images: Annotated[int, Field(ge=50)] = knob(
        500,
        "Most images of a group looked at, evenly spaced: of the real, the kept and the rejected "
        "ones each.",
    )
