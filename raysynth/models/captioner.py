"""Any transformers image-to-text model by name: images in, sentences out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysynth.models.architecture import NO_CODE
from raysynth.models.device import autocast, pick_device, pick_dtype, weight_dtype
from raysynth.models.loading import complete, frozen, load_or_explain, quiet_transformers
from raysynth.models.mirror import located
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_captioner, variant_of

LONGEST = 30
"""Tokens of a caption."""
AT_ONCE = 16


@dataclass(frozen=True)
class Captioner:
    """An image-to-text model with its own preprocessing."""

    model: Any
    processor: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def captions(self, pixels: np.ndarray, each: int) -> list[str]:
        """`each` captions of every image, [N, H, W, 3] uint8, in their order.

        By beam search, whose sentences are always the same.
        """
        said: list[str] = []
        for start in range(0, len(pixels), AT_ONCE):
            some = list(pixels[start : start + AT_ONCE])
            seen = self.processor(images=some, return_tensors="pt")["pixel_values"]
            seen = seen.to(self.device, next(self.model.parameters()).dtype)
            beams = {"num_beams": each, "num_return_sequences": each, "do_sample": False}
            with autocast(self.device, self.dtype):
                tokens = self.model.generate(pixel_values=seen, max_new_tokens=LONGEST, **beams)
            said += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(caption.split()) for caption in said]


def load_captioner(
    name: str, base: BaseConfigSection, revision: str | None, what: str
) -> Captioner:
    """Load an image-to-text model from a folder or the hub, frozen and in eval mode.

    Device and precision are the base's; weights come from safetensors only. `what`: the knob that
    names it, in errors.

    Raises
    ------
    ModelError
        When transformers cannot load it, its image processor or its tokenizer; some of its weights
        are not in its files.
    """
    check_captioner(name, what)
    source, device = located(name, what), pick_device(base.device)
    dtype = pick_dtype(base.dtype, device)
    hub: dict[str, Any] = NO_CODE | ({} if os.path.isdir(source) else {"revision": revision})
    transformers = quiet_transformers()
    options = hub | {
        "use_safetensors": True,
        "variant": variant_of(Path(source)),
        "dtype": weight_dtype(dtype, device),
        "ignore_mismatched_sizes": True,  # `complete` names them
        "output_loading_info": True,
    }
    load = transformers.AutoModelForImageTextToText.from_pretrained
    loaded = load_or_explain(what, source, lambda: load(source, **options))
    model = frozen(complete(what, source, loaded), device)
    kinds = (transformers.AutoImageProcessor, transformers.AutoTokenizer)
    parts = (partial(kind.from_pretrained, source, **hub) for kind in kinds)
    processor, tokenizer = (load_or_explain(what, source, part) for part in parts)
    return Captioner(model, processor, tokenizer, device, dtype)
