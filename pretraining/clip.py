"""The tiny base's CLIPModel, contrastive from scratch (Radford et al. 2021, at 1/100 of the size).

Captions repeat within a batch, so equal meanings count as positives: every image is contrasted with
one random caption of each meaning there is. Both towers learn together first; then the text tower
is frozen (the UNet is trained on it) and the vision tower goes on alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from pretraining.loop import Plan, descend, train
from pretraining.photographs import BASE, WILD, BaseGarments, compose, sample_grounds
from pretraining.words import GROUNDS, MAX_LENGTH, Meaning, all_meanings, captions, random_caption
from raysynth.datasets.garments import CLASSES
from raysynth.pretraining.loop import warm_then_decay

IMAGE_MEAN, IMAGE_STD = (0.48, 0.47, 0.44), (0.25, 0.25, 0.25)
"""Normalisation of pixels in 0..1, kept in the processor."""

_BATCH = 160
_RATE, _MATRIX_RATE, _WEIGHT_DECAY = 1e-3, 1e-2, 0.05
_EMA = 0.999
_PAIRS = len(CLASSES) * len(GROUNDS)

CLASS_WEIGHTS = torch.tensor([1.0, 0.7, 2.4, 1.0, 2.4, 0.7, 1.6, 0.7, 0.7, 0.7])
"""How often each class is drawn: the look-alikes most often."""


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained model: ViT 128x5 with 4x4 patches, text tower 64x2."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": 64,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "hidden_act": "gelu_pytorch_tanh",
        "image_size": 32,
        "patch_size": 4,
        "projection_dim": 64,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    config._attn_implementation = "eager"  # SDPA's backward is slow on CPUs
    return CLIPModel(config)


def normalise(images: Tensor) -> Tensor:
    """Pixels in 0..1 [B, 3, 32, 32] as the vision tower takes them."""
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    return (images - mean[:, None, None]) / std[:, None, None]


def image_features(clip: CLIPModel, images: Tensor) -> Tensor:
    """Unit vectors [B, 64] of images in 0..1."""
    pooled = clip.vision_model(normalise(images)).pooler_output
    return F.normalize(clip.visual_projection(pooled).float(), dim=-1)


def text_features(clip: CLIPModel, tokens: Tensor) -> Tensor:
    """Unit vectors [T, 64] of token numbers [T, MAX_LENGTH]."""
    pooled = clip.text_model(input_ids=tokens).pooler_output
    return F.normalize(clip.text_projection(pooled).float(), dim=-1)


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token numbers [T, MAX_LENGTH], padded as StableDiffusionPipeline pads."""
    batch = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    tokens: Tensor = batch.input_ids
    return tokens


def contrastive_loss(
    logits: Tensor, garments: Tensor, grounds: Tensor, meanings: list[Meaning]
) -> Tensor:
    """Multi-positive InfoNCE of images against one caption of every meaning.

    `logits` [B, T] in the order of `all_meanings`; `garments`, `grounds` [B]. Image to text: the
    right one among all pairs, among all garments, among all grounds. Text to image: the mean
    log-likelihood of the images a caption fits (as SupCon's outer sum, Khosla et al. 2020).
    """
    pairs, alone, places = logits.split([_PAIRS, len(CLASSES), len(GROUNDS)], dim=1)
    to_text = (
        F.cross_entropy(pairs, garments * len(GROUNDS) + grounds)
        + F.cross_entropy(alone, garments)
        + 0.3 * F.cross_entropy(places, grounds)
    )
    fits_garment = torch.tensor([-1 if m[0] is None else m[0] for m in meanings])
    fits_ground = torch.tensor([-1 if m[1] is None else m[1] for m in meanings])
    fits = (fits_garment == -1) | (fits_garment == garments[:, None])
    fits &= (fits_ground == -1) | (fits_ground == grounds[:, None])
    likelihood = (F.log_softmax(logits, dim=0) * fits).sum(0) / fits.sum(0).clamp(min=1)
    return to_text - 0.2 * likelihood[fits.any(0)].mean()


def train_clip(
    joint: Plan,
    alone: Plan,
    base: BaseGarments,
    tokenizer: CLIPTokenizer,
    on_text: Callable[[CLIPModel], None] | None = None,
) -> CLIPModel:
    """Train both towers for `joint.steps`, then the vision tower for `alone.steps` more.

    `on_text` is called once the text tower is final. Returns the averaged weights.
    """
    torch.manual_seed(joint.seed)
    clip = build_clip(tokenizer)
    _train_towers(joint, clip, base, _TextBatch(clip, tokenizer, frozen=False), clip, 0.0)
    if on_text:
        on_text(clip)
    clip.text_model.requires_grad_(False)
    clip.text_projection.requires_grad_(False)
    text = _TextBatch(clip, tokenizer, frozen=True)
    averaged = AveragedModel(clip, multi_avg_fn=get_ema_multi_avg_fn(_EMA))
    _train_towers(alone, clip, base, text, averaged, 0.5)
    result: CLIPModel = averaged.module
    return result.eval().requires_grad_(False)


class _TextBatch:
    """Features of one random caption of every meaning, computed once if the tower is frozen."""

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, frozen: bool) -> None:
        self.clip, self.meanings = clip, all_meanings()
        self.number = {text: i for i, text in enumerate(self._texts())}
        self.tokens = tokenise(tokenizer, list(self.number))
        self.features: Tensor | None = None
        if frozen:
            with torch.no_grad():
                self.features = text_features(clip, self.tokens)

    def _texts(self) -> list[str]:
        return list(dict.fromkeys(text for m in self.meanings for text in captions(m)))

    def draw(self, dice: random.Random) -> Tensor:
        """Features [T, 64] in the order of `all_meanings`."""
        rows = torch.tensor([self.number[random_caption(m, dice)] for m in self.meanings])
        if self.features is not None:
            return self.features[rows]
        return text_features(self.clip, self.tokens[rows])


def _train_towers(
    plan: Plan,
    clip: CLIPModel,
    base: BaseGarments,
    text: _TextBatch,
    averaged: nn.Module,
    decay: float,
) -> None:
    """The shared training loop; `averaged` is an AveragedModel, or `clip` itself for no average."""
    drivers = optimizers(clip, plan.steps, decay)

    def step(dice: torch.Generator) -> dict[str, float]:
        positions = base.sample(_BATCH, CLASS_WEIGHTS, dice)
        grounds = sample_grounds(_BATCH, dice)
        look = BASE if torch.rand((), generator=dice) < 0.5 else WILD
        images, _ = compose(base.cutouts[positions], grounds, look, dice)
        garments = base.labels[positions]
        words = random.Random(int(torch.randint(1 << 40, (), generator=dice)))
        with torch.autocast("cpu", torch.bfloat16):
            features, caption_features = image_features(clip, images), text.draw(words)
        logits = clip.logit_scale.exp().clamp(max=50) * features @ caption_features.T
        loss = contrastive_loss(logits, garments, grounds, text.meanings)
        descend(loss, clip, *drivers.values())
        if isinstance(averaged, AveragedModel):
            averaged.update_parameters(clip)
        right = (logits[:, _PAIRS : _PAIRS + len(CLASSES)].argmax(1) == garments).float().mean()
        return {"loss": loss.item(), "garment": right.item()}

    train(plan, {"clip": clip, "averaged": averaged, **drivers}, step)


def optimizers(
    clip: CLIPModel, steps: int, decay: float
) -> dict[str, torch.optim.Optimizer | LambdaLR]:
    """Muon for the transformer blocks' matrices (Jordan et al. 2024), AdamW for all else."""
    learned = [(name, p) for name, p in clip.named_parameters() if p.requires_grad]
    matrices = [p for name, p in learned if ".layers." in name and p.ndim == 2]
    others = [p for name, p in learned if not (".layers." in name and p.ndim == 2)]
    muon = torch.optim.Muon(matrices, lr=_MATRIX_RATE, weight_decay=_WEIGHT_DECAY)
    adam = torch.optim.AdamW(others, lr=_RATE, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY)
    factor = warm_then_decay(steps, decay) if decay else lambda step: min(1.0, (step + 1) / 100)
    return {
        "muon": muon,
        "adam": adam,
        "muon_schedule": LambdaLR(muon, factor),
        "adam_schedule": LambdaLR(adam, factor),
    }


@torch.no_grad()
def zero_shot(
    clip: CLIPModel, tokenizer: CLIPTokenizer, images: Tensor, prompts: list[str]
) -> Tensor:
    """Number of the best-matching prompt for each image in 0..1 [B, 3, 32, 32]."""
    texts = text_features(clip, tokenise(tokenizer, prompts))
    parts = [image_features(clip, part) @ texts.T for part in images.split(256)]
    return torch.cat(parts).argmax(1)
