"""The contrastive pair, from scratch (Radford et al. 2021), at the size of its images.

Captions repeat within a batch, so equal meanings count as positives: images are held against one
random caption of each meaning there is. Both towers learn together first; then the text tower is
frozen, for the denoiser is trained on it, and the vision tower goes on alone. Images without
captions are held against other views of themselves (Chen et al. 2020), and the text tower stays as
it began: it is asked for the empty prompt alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from transformers import CLIPModel

from raysynth.pretraining.captions import WEIGHTS
from raysynth.pretraining.loop import Numbers, Plan, averaging, descend, train, warm_then_decay
from raysynth.pretraining.making import Making
from raysynth.pretraining.settings import NONE
from raysynth.pretraining.tokens import tokenise
from raysynth.pretraining.views import strong_views

IMAGE_MEAN, IMAGE_STD = (0.48, 0.47, 0.44), (0.25, 0.25, 0.25)
"""Normalisation of pixels in 0..1, kept in the processor."""
WEIGHT_DECAY, AVERAGE = 0.05, 0.995
TEXT_TO_IMAGE = 0.2
"""Weight of the loss that holds texts against images."""
SHARPEST = 50.0
"""Most that similarities are multiplied by."""


def image_features(clip: CLIPModel, images: Tensor) -> Tensor:
    """Unit vectors [B, D] of images in 0..1."""
    mean, std = (torch.tensor(each, device=images.device) for each in (IMAGE_MEAN, IMAGE_STD))
    seen = (images - mean[:, None, None]) / std[:, None, None]
    pooled = clip.vision_model(seen).pooler_output
    return F.normalize(clip.visual_projection(pooled).float(), dim=-1)


def text_features(clip: CLIPModel, tokens: Tensor) -> Tensor:
    """Unit vectors [T, D] of token numbers [T, length]."""
    pooled = clip.text_model(input_ids=tokens).pooler_output
    return F.normalize(clip.text_projection(pooled).float(), dim=-1)


def contrastive_loss(logits: Tensor, fits: Tensor, blocks: list[tuple[int, float]]) -> Tensor:
    """Multi-positive contrastive loss of images against texts, [B, T] logits and bool `fits`.

    Image to text: within each block of (texts, weight), -log of the share that the fitting ones
    have of a softmax. Text to image: the mean log-likelihood of the images that a text fits (as
    SupCon's outer sum, Khosla et al. 2020, equation 2). Images that no text of a block fits are
    left out of it.
    """
    loss, start = logits.new_zeros(()), 0
    for size, weight in blocks:
        own, right = logits[:, start : start + size], fits[:, start : start + size]
        start += size
        known = right.any(dim=1)
        if size and known.any():
            found = own.masked_fill(~right, float("-inf"))[known].logsumexp(1)
            loss = loss + weight * (own[known].logsumexp(1) - found).mean()
    likelihood = (F.log_softmax(logits, dim=0) * fits).sum(0) / fits.sum(0).clamp(min=1)
    return loss - TEXT_TO_IMAGE * likelihood[fits.any(0)].mean()


def train_clip(making: Making, clip: CLIPModel) -> CLIPModel:
    """Train (or resume, or just load) the pair; returns its averaged weights."""
    clip = clip.to(making.crew.device).train()
    making.crew.same(clip)
    settings = making.settings.clip
    if making.settings.captions != NONE:
        _train(making, making.plan("clip-joint", settings.steps), clip, None, frozen=False)
    for part in (clip.text_model, clip.text_projection):
        part.requires_grad_(False)
    averaged = averaging(clip, AVERAGE)
    _train(making, making.plan("clip", settings.alone_steps), clip, averaged, frozen=True)
    result: CLIPModel = averaged.module
    return result.eval().requires_grad_(False)


def _train(
    making: Making, plan: Plan, clip: CLIPModel, averaged: AveragedModel | None, *, frozen: bool
) -> None:
    rate = making.settings.clip.learning_rate
    factor = warm_then_decay(plan.steps, 0.5) if frozen else lambda n: min(1.0, (n + 1) / 100)
    learned = [p for p in clip.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, lr=rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = LambdaLR(optimizer, factor)
    texts = _Texts(making, clip, frozen=frozen)

    def step(dice: torch.Generator) -> Numbers:
        loss = batch_loss(making, clip, texts, dice)
        norm = descend(making.crew, loss, clip, optimizer, schedule)
        if averaged is not None:
            averaged.update_parameters(clip)
        return {"loss": loss.detach(), "norm": norm}

    parts = {"clip": clip, "optimizer": optimizer, "schedule": schedule}
    train(plan, {**parts, "averaged": averaged or clip}, step)


def batch_loss(making: Making, clip: CLIPModel, texts: _Texts, dice: torch.Generator) -> Tensor:
    """The loss of one drawn batch, the same for every worker: features are gathered."""
    settings, material, crew = making.settings, making.material, making.crew
    rows = making.draw(settings.clip.batch_size, dice)
    pixels = material.pixels[rows]
    images = strong_views(pixels, settings, dice)
    with crew.autocast():
        features = crew.gather(image_features(clip, crew.share(images)))
    scale = clip.logit_scale.exp().clamp(max=SHARPEST)
    if settings.captions == NONE:
        others = strong_views(pixels, settings, dice)
        with crew.autocast():
            beside = crew.gather(image_features(clip, crew.share(others)))
        fits = rows[:, None] == rows[None, :]
        return contrastive_loss(
            scale * features @ beside.T, fits.to(crew.device), [(len(rows), 1.0)]
        )
    drawn = material.captions.contrasts(material.label[rows], material.attribute[rows], dice)
    logits = scale * features @ texts.features(drawn.texts).T
    blocks = list(zip(drawn.blocks, WEIGHTS.values(), strict=True))
    return contrastive_loss(logits, drawn.fits.to(crew.device), blocks)


class _Texts:
    """Features of the captions, computed once where the tower is frozen."""

    def __init__(self, making: Making, clip: CLIPModel, *, frozen: bool) -> None:
        self._making, self._clip = making, clip
        texts = making.material.captions.texts
        self._tokens = tokenise(making.tokenizer, texts).to(making.crew.device)
        self._known: Tensor | None = None
        if frozen:
            with torch.no_grad():
                parts = [text_features(clip, part) for part in self._tokens.split(256)]
            self._known = torch.cat(parts)

    def features(self, numbers: Tensor) -> Tensor:
        """[T, D] of texts by number."""
        numbers = numbers.to(self._making.crew.device)
        if self._known is not None:
            return self._known[numbers]
        with self._making.crew.autocast():
            return text_features(self._clip, self._tokens[numbers])
