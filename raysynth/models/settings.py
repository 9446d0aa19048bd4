"""The knobs of `base`: the text-to-image model and the CLIP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
)

from raysynth.knobs import Named, Place, Section
from raysynth.values import torch_device

CLIP = "clip"
"""`clustering.encoder` and `classifier.backbone`: the CLIP of `base`."""


class BaseConfigSection(Section):
    """The text-to-image base model and the CLIP that embeds and scores."""

    name: Place = Field(
        "embedded",
        description="`embedded`, folder or hub id owner/model (Stable Diffusion 1.x).",
    )
    clip: Place = Field(
        "embedded", description="`embedded`, folder or hub id owner/model (transformers CLIP)."
    )
    revision: Named | None = Field(
        None,
        description="Hub revision of `name`: commit, tag or branch; None: the newest. A run takes "
        "one commit for all of its workers, and records it.",
    )
    clip_revision: Named | None = Field(None, description="Hub revision of `clip`, as `revision`.")
    device: Annotated[str, AfterValidator(torch_device)] = Field(
        "auto",
        description="auto: cuda, mps or cpu by probing; or a torch device such as cuda:1 or xpu.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Compute precision of the frozen parts; auto: by the device."
    )
    attention: Literal["auto", "sdpa", "plain"] = Field(
        "auto",
        description="Attention kernel; auto: plain on CPU (faster there), SDPA elsewhere.",
    )


def clip_of(base: BaseConfigSection) -> dict[str, Any]:
    """What identifies the CLIP: its name, and its hub revision if it has one."""
    revision = {"clip_revision": base.clip_revision} if base.clip_revision else {}
    return {"clip": base.clip} | revision
