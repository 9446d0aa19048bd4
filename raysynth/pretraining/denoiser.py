"""The denoiser: a UNet on cached latents, trained by rectified flow.

Noise level s in (0, 1): x_s = (1 - s) x_0 + s e, target e - x_0, timestep 1000 s (Liu et al. 2023,
arXiv 2209.03003, equation 1; logit-normal levels as Esser et al. 2024, arXiv 2403.03206, section
3.1). The loss is fine-tuning's, with the terms that are asked for. Text states come from the frozen
text tower, latents from the frozen autoencoder.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import CLIPModel

from raysynth.finetune.objective import Noised
from raysynth.finetune.objectives.denoising import PART as DENOISING
from raysynth.finetune.term import Added, terms_of
from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.families.stable_diffusion_1 import STATES
from raysynth.models.family import FAMILIES, USUAL, Base
from raysynth.models.shape import Shape
from raysynth.pretraining.export import sampler
from raysynth.pretraining.loop import Numbers, averaging, descend, load, train, warm_then_decay
from raysynth.pretraining.making import Making
from raysynth.pretraining.previews import keep_samples
from raysynth.pretraining.terms import alone_of, ask
from raysynth.pretraining.tokens import tokenise
from raysynth.pretraining.views import views
from raysynth.storage.files import write_atomic

UNIFORM_SHARE = 0.1
"""Of noise levels, so that the sampler's first step, of nearly pure noise, is trained as well."""
ENCODED_AT_ONCE = 256
MOST_STATES = 4096
"""Texts up to which all states are kept; beyond, they are computed anew."""


@dataclass(frozen=True)
class Cache:
    """`latents` float16 [N, C, H, W] and the row of the image that each is a view of, [N]."""

    latents: Tensor
    rows: Tensor


def cache_latents(making: Making, vae: AutoencoderKL) -> Cache:
    """Encode views of training images once; they are kept beside the checkpoints."""
    file = f"{making.folder}/stages/latents-{making.keys['latents']}.pt"
    found = load(file, torch.device("cpu"))
    if found is None:
        if making.crew.leads:
            buffer = io.BytesIO()
            torch.save(_encoded(making, vae), buffer)
            write_atomic(file, buffer.getbuffer())
        making.crew.wait()
        found = load(file, torch.device("cpu"))
        assert found is not None
    return Cache(**found)


@torch.no_grad()
def _encoded(making: Making, vae: AutoencoderKL) -> dict[str, Tensor]:
    count = making.settings.denoiser.latents
    dice = torch.Generator().manual_seed(making.seed)
    rows, parts = making.draw(count, dice), []
    for part in rows.split(ENCODED_AT_ONCE):
        images = views(making.material.pixels[part], making.settings, dice) * 2 - 1
        with making.crew.autocast():
            posterior = vae.encode(images.to(making.crew.device)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=dice).to(posterior.mean.device)
        parts.append((posterior.mean + posterior.std * noise).half().cpu())
        making.told("latents", sum(map(len, parts)), count, {})
    return {"latents": torch.cat(parts), "rows": rows}


class States:
    """The text tower's states of captions, [T, length, D]."""

    def __init__(self, making: Making, clip: CLIPModel) -> None:
        self._text = clip.text_model.eval()
        self._tokens = tokenise(making.tokenizer, making.material.captions.texts)
        self._device = making.crew.device
        self._known: Tensor | None = None
        if len(self._tokens) <= MOST_STATES:
            self._known = torch.cat([self._computed(part) for part in self._tokens.split(256)])

    @torch.no_grad()
    def _computed(self, tokens: Tensor) -> Tensor:
        return self._text(input_ids=tokens.to(self._device)).last_hidden_state.float()

    def of(self, numbers: Tensor) -> Tensor:
        """[B, length, D] of texts by number."""
        if self._known is not None:
            return self._known[numbers.to(self._device)]
        return self._computed(self._tokens[numbers.cpu()])


def train_denoiser(
    making: Making, unet: UNet2DConditionModel, clip: CLIPModel, vae: AutoencoderKL
) -> UNet2DConditionModel:
    """Train (or resume, or just load) the denoiser; returns its averaged weights."""
    crew, settings = making.crew, making.settings.denoiser
    unet = unet.to(crew.device).train()
    crew.same(unet)
    plan = making.plan("denoiser", settings.steps)
    averaged = averaging(unet, settings.average)
    optimizer = torch.optim.AdamW(
        unet.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=True,
    )
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.4))
    cache, states = cache_latents(making, vae), States(making, clip)
    denoise, terms = denoiser_of(making, unet), terms_of(making.settings.denoiser)

    def step(dice: torch.Generator) -> Numbers:
        loss = batch_loss(making, denoise, terms, cache, states, dice)
        norm = descend(crew, loss, unet, optimizer, schedule)
        averaged.update_parameters(unet)
        return {"loss": loss.detach(), "norm": norm}

    def preview(done: int) -> None:
        keep_samples(making, done, clip, vae, averaged.module)

    parts = {"unet": unet, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    train(plan, parts, step, preview)
    result: UNet2DConditionModel = averaged.module
    return result.eval().requires_grad_(False)


def batch_loss(
    making: Making,
    denoise: Denoiser,
    terms: Sequence[Added],
    cache: Cache,
    states: States,
    dice: torch.Generator,
) -> Tensor:
    """The loss on this worker's share of one drawn batch."""
    material, crew = making.material, making.crew
    chosen = torch.randint(
        len(cache.latents), (making.settings.denoiser.batch_size,), generator=dice
    )
    rows = cache.rows[chosen]
    shown = (material.label[rows], material.attribute[rows])
    told = material.captions.draw(*shown, dice, alone_of(terms))
    level = torch.randn(len(chosen), generator=dice).sigmoid()
    uniform = torch.rand(len(chosen), generator=dice) < UNIFORM_SHARE
    level = torch.where(uniform, torch.rand(len(chosen), generator=dice), level)
    noise = torch.randn(len(chosen), *cache.latents.shape[1:], generator=dice)
    also: dict[str, Tensor] = {}
    differs: dict[str, Tensor] = {}
    if terms and material.groups is not None:
        also, differs = ask(terms, material.captions, material.groups, told, dice)
    latents = cache.latents[chosen[crew.own(len(chosen))]].float().to(crew.device)
    batch = noised(
        denoise,
        latents,
        crew.share(level),
        crew.share(noise),
        states.of(crew.share(told.texts)),
        {name: states.of(crew.share(texts)) for name, texts in also.items()},
        {name: crew.share(other) for name, other in differs.items()},
    )
    return batch_errors(batch, terms).mean()


def denoiser_of(making: Making, unet: UNet2DConditionModel) -> Denoiser:
    """The network as objectives and terms speak to it."""
    crew, size = making.crew, unet.config
    latents = (size.in_channels, size.sample_size, size.sample_size)
    tokens = int(making.tokenizer.model_max_length)
    shape = Shape(latents, making.settings.side // size.sample_size, tokens)
    parts = {"unet": unet, "scheduler": sampler()}
    return Denoiser(Base(FAMILIES[USUAL], parts, shape, crew.device, crew.dtype), unet)


def noised(
    denoise: Denoiser,
    latents: Tensor,
    level: Tensor,
    noise: Tensor,
    states: Tensor,
    also: Mapping[str, Tensor],
    differs: Mapping[str, Tensor],
) -> Noised:
    """A batch at levels [b] between latents and noise, and the text states it is shown under."""
    prediction = denoise.base.prediction
    timestep = prediction.at(level)
    noisy, target = prediction.noised(latents, noise, timestep)
    others = {name: Condition({STATES: each}) for name, each in also.items()}
    told = Condition({STATES: states})
    return Noised(denoise, noisy, timestep, told, latents, noise, target, others, differs, {})


def batch_errors(batch: Noised, terms: Sequence[Added]) -> Tensor:
    """[b] mean squared errors of the predicted flow e - x_0, and what terms add to them."""
    found = DENOISING.losses(batch, batch.denoise, DENOISING.Knobs())
    for added in terms:
        found = found + added(batch)
    return found
