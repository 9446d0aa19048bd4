"""The knobs of `base`: the text-to-image model and the CLIP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from raysynth.knobs import Named, Place, Section, decides, knob
from raysynth.values import torch_device

CLIP = "clip"
"""`clustering.encoder` and `classifier.backbone`: the CLIP of `base`."""
LITE = "efficientnet_lite0"
"""There, and `fidelity.encoder`: the network of `models.efficientnet_lite`."""


class BaseConfigSection(Section):
    """The text-to-image base model and the CLIP that embeds and scores."""

    name: Place = knob(
        "embedded",
        "`embedded`, folder, URI of one (s3://, gs://, az://) or hub id owner/model; `raysynth "
        "parts families` lists what families.",
    )
    weights: Place | None = knob(
        None,
        "One .safetensors file whose weights replace those of `name` that it holds, such as a "
        "checkpoint of Stable Diffusion or the transformer alone; None: those of `name`.",
        neutral=None,
    )
    clip: Place = knob(
        "embedded", "`embedded`, folder, URI of one or hub id owner/model (transformers CLIP)."
    )
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
    quantization: Literal["none", "int8", "nf4"] = knob(
        "none",
        "Linear layers of the network and of the text encoders in fewer bits, where LoRA is all "
        "that is trained: int8, a half of 16-bit floats; nf4, a quarter "
        "(`pip install 'raysynth[quantization]'`).",
        neutral="none",
    )
    attention: Literal["auto", "sdpa", "plain"] = knob(
        "auto",
        "Attention kernel; auto: plain for small latents on a CPU, SDPA elsewhere.",
        width=True,
    )


def clip_of(base: BaseConfigSection) -> dict[str, Any]:
    """What identifies the CLIP, for a stage that embeds or scores with it."""
    return {name: value for name, value in decides(base).items() if name.startswith("clip")}


def base_of(base: BaseConfigSection) -> dict[str, Any]:
    """What identifies the base model, for a stage that loads it: all but the CLIP."""
    return {name: value for name, value in decides(base).items() if not name.startswith("clip")}
