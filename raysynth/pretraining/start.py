"""The parts that training begins with: untrained ones, or those of another base."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from raysynth.models.loading import load_or_explain, quiet_transformers
from raysynth.models.sources import resolve
from raysynth.pretraining.checks import KEY
from raysynth.pretraining.settings import PretrainingConfig
from raysynth.pretraining.sizes import build_autoencoder, build_clip, build_denoiser

TOKENS = "text_model.embeddings.token_embedding.weight"
PLACES = "text_model.embeddings.position_embedding.weight"


@dataclass(frozen=True)
class Parts:
    """A base's networks."""

    clip: CLIPModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel


def begin(settings: PretrainingConfig, tokenizer: CLIPTokenizer, seed: int, on_cpu: bool) -> Parts:
    """The networks before their training; on CPUs attention is computed as plain products."""
    torch.manual_seed(seed)
    if settings.start is None:
        parts = Parts(
            build_clip(settings, tokenizer), build_autoencoder(settings), build_denoiser(settings)
        )
    else:
        parts = _of_base(resolve(settings.start), tokenizer)
    if on_cpu:
        parts.unet.set_attn_processor(AttnProcessor())
    return parts


def _of_base(folder: str, tokenizer: CLIPTokenizer) -> Parts:
    quiet_transformers()
    clip = load_or_explain(KEY, folder, lambda: CLIPModel.from_pretrained(f"{folder}/clip"))
    known = load_or_explain(KEY, folder, lambda: CLIPTokenizer.from_pretrained(f"{folder}/clip"))
    options = {"use_safetensors": True}
    vae = load_or_explain(
        KEY, folder, lambda: AutoencoderKL.from_pretrained(folder, subfolder="vae", **options)
    )
    unet = load_or_explain(
        KEY,
        folder,
        lambda: UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options),
    )
    return Parts(_with_words(clip, known, tokenizer), vae, unet)


def _with_words(clip: CLIPModel, known: CLIPTokenizer, tokenizer: CLIPTokenizer) -> CLIPModel:
    """The pair with another tokenizer's vocabulary: tokens of both keep their embeddings."""
    config = copy.deepcopy(clip.config)
    text = config.text_config
    text.vocab_size, text.max_position_embeddings = len(tokenizer), int(tokenizer.model_max_length)
    for name in ("bos", "eos", "pad"):
        setattr(text, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    config._attn_implementation = "eager"
    found = CLIPModel(config)
    fresh, old = found.state_dict(), clip.state_dict()
    kept: dict[str, Tensor] = {n: v for n, v in old.items() if v.shape == fresh[n].shape}
    kept.pop(TOKENS, None)
    found.load_state_dict(kept, strict=False)
    own, theirs = tokenizer.get_vocab(), known.get_vocab()
    shared = [token for token in own if token in theirs]
    with torch.no_grad():
        now = found.text_model.embeddings.token_embedding.weight
        now[[own[t] for t in shared]] = old[TOKENS][[theirs[t] for t in shared]].to(now)
        places = min(text.max_position_embeddings, len(old[PLACES]))
        at = found.text_model.embeddings.position_embedding.weight
        at[:places] = old[PLACES][:places].to(at)
    return found
