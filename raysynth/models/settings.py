"""The knobs of `base`: the text-to-image model and the CLIP."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from raysynth.knobs import Named, Place, Section, knob
from raysynth.values import torch_device


class BaseConfigSection(Section):
    """The text-to-image base model and the CLIP that embeds and scores."""

    name: Place = knob(
        "embedded",
        "`embedded`, folder or hub id owner/model (Stable Diffusion 1.x).",
    )
    clip: Place = knob("embedded", "`embedded`, folder or hub id owner/model (transformers CLIP).")
    revision: Named | None = knob(
        None,
        "Hub revision of `name`: commit, tag or branch; None: the newest. A run takes one commit "
        "for all of its workers, and records it.",
    )
    clip_revision: Named | None = knob(None, "Hub revision of `clip`, as `revision`.", neutral=None)
    device: Annotated[str, AfterValidator(torch_device)] = knob(
        "auto",
        "auto: cuda, mps or cpu by probing; or a torch device such as cuda:1 or xpu.",
        width=True,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "Compute precision of the frozen parts; auto: by the device."
    )
    attention: Literal["auto", "sdpa", "plain"] = knob(
        "auto",
        "Attention kernel; auto: plain on CPU (faster there), SDPA elsewhere.",
        width=True,
    )
